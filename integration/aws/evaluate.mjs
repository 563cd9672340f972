// Judges requests by policies, with an evaluator that knows conditions. One JSON object a line in, one word a line out.
import { createInterface } from 'node:readline';
import { runSimulation } from '@cloud-copilot/iam-simulate';

const named = (policies) => (policies ?? []).map((policy, index) => ({ name: `policy-${index}`, policy }));

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const result = await runSimulation(
    {
      request: {
        principal: asked.principal,
        action: asked.action,
        resource: { resource: asked.resource, accountId: asked.account },
        contextVariables: asked.context,
      },
      identityPolicies: named(asked.identity),
      sessionPolicy: asked.session ?? undefined,
      permissionBoundaryPolicies: asked.boundary ? named([asked.boundary]) : undefined,
      resourcePolicy: asked.onResource,
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  );
  const told = result.resultType === 'error' ? `error ${JSON.stringify(result.errors)}` : result.overallResult;
  process.stdout.write(`${told}\n`);
}
