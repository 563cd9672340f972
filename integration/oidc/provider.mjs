// A real OpenID provider (oidc-provider, certified by the OpenID Foundation) on loopback, for the stories about people.
//
// Belongs here: its clients and accounts, the pages a person fills in, and what a test may do to it while it runs.
// What a person does is done by form posts, as a browser would (browser.py). One line of JSON on standard output
// answers the start and each command on standard input:
//   rotate   a new key signs, the old one is still published
//   forget   the old keys are not published any more
// It ends when its standard input does.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { parse } from 'node:querystring';
import Provider from 'oidc-provider';

const [port, accountsJson] = process.argv.slice(2);
// {subject: {password, otp, groups, email, name}}
const accounts = JSON.parse(accountsJson);

const STRONG = 'urn:example:two-factors';
const WEAK = 'urn:example:password';
const client = (client_id, changes = {}) => ({
  client_id,
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  redirect_uris: ['http://127.0.0.1/callback'],
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  response_types: ['code'],
  ...changes,
});

let keys = [];
function rotate() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  // The first key that fits is the one that signs.
  keys = [{ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' }, ...keys];
}

async function findAccount(_ctx, sub) {
  const account = Object.hasOwn(accounts, sub) ? accounts[sub] : undefined;
  return account && {
    accountId: sub,
    claims: async () => ({ sub, groups: account.groups, email: account.email, name: account.name }),
  };
}

function makeProvider(issuer) {
  const provider = new Provider(issuer, {
    clients: [client('jit-broker'), client('another-application')],
    jwks: { keys },
    findAccount,
    // Into the ID token, and not only behind userinfo: the broker asks nobody else.
    conformIdTokenClaims: false,
    claims: { openid: ['sub', 'acr', 'amr', 'auth_time'], groups: ['groups'], email: ['email'], profile: ['name'] },
    scopes: ['openid', 'offline_access'],
    acrValues: [STRONG, WEAK],
    cookies: { keys: [randomUUID()] },
    features: { devInteractions: { enabled: false }, deviceFlow: { enabled: true }, revocation: { enabled: true } },
    ttl: { IdToken: 600, AccessToken: 600, DeviceCode: 300, RefreshToken: 3600, Session: 3600, Interaction: 600, Grant: 3600 },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    renderError: async (ctx, out) => { ctx.type = 'json'; ctx.body = out; },
  });
  return provider;
}

const page = (title, action, fields) => `<!doctype html><title>${title}</title>
<form method="post" action="${action}">${fields.map((name) => `<input name="${name}">`).join('')}<button>Go on</button></form>`;

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return parse(text);
}

async function granted(provider, { session, params, prompt, grantId }) {
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  return grant.save();
}

async function interact(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  const fields = details.prompt.name === 'login' ? ['login', 'password', 'otp'] : ['consent'];
  if (request.method !== 'POST') {
    response.setHeader('content-type', 'text/html');
    response.end(page(details.prompt.name, request.url, fields));
    return;
  }
  const filled = await body(request);
  if (filled.cancel) {
    const result = { error: 'access_denied', error_description: 'the person said no' };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    return;
  }
  if (details.prompt.name === 'login') {
    const account = Object.hasOwn(accounts, filled.login ?? '') ? accounts[filled.login] : undefined;
    if (!account || account.password !== filled.password) {
      response.statusCode = 403;
      response.end('wrong login or password');
      return;
    }
    const strong = Boolean(filled.otp) && filled.otp === account.otp;
    const login = { accountId: filled.login, acr: strong ? STRONG : WEAK, amr: strong ? ['pwd', 'otp', 'mfa'] : ['pwd'] };
    await provider.interactionFinished(request, response, { login }, { mergeWithLastSubmission: false });
    return;
  }
  const consent = { grantId: await granted(provider, details) };
  await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
}

// The library's notices are for the log: standard output is for answers.
console.log = console.error;
console.info = console.error;

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

let provider;
const server = createServer((request, response) => {
  if (!request.url.startsWith('/interaction/')) {
    provider.callback()(request, response);
    return;
  }
  interact(provider, request, response).catch((error) => {
    response.statusCode = 400;
    response.end(String(error.error_description ?? error.message));
  });
});

server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const start = () => { provider = makeProvider(issuer); };
  rotate();
  start();
  say({ issuer, kid: keys[0].kid });
  const commands = {
    rotate: () => { rotate(); start(); },
    forget: () => { keys = keys.slice(0, 1); start(); },
  };
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => { commands[line](); say({ done: line, kid: keys[0].kid }); });
  lines.on('close', () => process.exit(0));
});
