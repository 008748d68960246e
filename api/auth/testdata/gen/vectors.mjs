// Makes golden tokens with the npm package jose: npm ci && npm run make
//
// Every token says whether it is good for us, and whether jose itself takes it: where the two
// differ, we are the stricter one.
import {createCipheriv, createHash, randomBytes} from 'node:crypto';
import {
  CompactEncrypt, CompactSign, EncryptJWT, SignJWT, exportJWK, generateKeyPair, jwtDecrypt, jwtVerify,
} from 'jose';

const now = 1790000000; // the time at which all of them are judged
const secret = '{"JWE_SECRET":"golden-0123456789-abcdefghijklmnop"}';
const previous = '{"JWE_SECRET":"golden-before-0123456789-abcdefgh"}';
const signing = 'golden-signing-secret-0123456789-abcdef';
const keyOf = text => createHash('sha256').update(text).digest();
const key = keyOf(secret);
const utf8 = text => new TextEncoder().encode(text);
const b64 = data => Buffer.from(data).toString('base64url');

const base = {sessionId: 'ses_1790000000_golden', userId: 'user_golden', browserOptions: {viewport: {width: 640, height: 480}}};
const full = {...base, sub: 'key-golden', iat: now - 60, exp: now + 3600};
const dir = {alg: 'dir', enc: 'A256GCM'};
const without = (object, ...names) => Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)));

const vectors = [];
const keys = {};
for (const alg of ['ES256', 'RS256', 'EdDSA']) {
  keys[alg] = await generateKeyPair(alg, {extractable: true});
}
const other = await generateKeyPair('ES256');

async function takenByJose(token, verifier) {
  const options = {clockTolerance: 30, currentDate: new Date(now * 1000)};
  try {
    switch (verifier) {
      case 'JWE': await jwtDecrypt(token, key, {...options, keyManagementAlgorithms: ['dir'], contentEncryptionAlgorithms: ['A256GCM']}); break;
      case 'HS256': await jwtVerify(token, utf8(signing), {...options, algorithms: ['HS256'], audience: 'wallcrawler'}); break;
      default: await jwtVerify(token, keys[verifier].publicKey, {...options, algorithms: [verifier], audience: 'wallcrawler', issuer: 'https://issuer.example'});
    }
    return true;
  } catch {
    return false;
  }
}

async function add(verifier, good, name, token, expect = {}) {
  vectors.push({name, verifier, good, jose: await takenByJose(token, verifier), token, ...expect});
}

const seal = (claims, header = dir, k = key) => new EncryptJWT(claims).setProtectedHeader(header).encrypt(k);
const sealText = (text, header = dir) => new CompactEncrypt(utf8(text)).setProtectedHeader(header).encrypt(key);

// byHand makes what jose refuses to make.
function byHand(claims, {header = JSON.stringify(dir), ivBytes = 12, tagBytes = 16, k = key, middle = ''} = {}) {
  const head = b64(header);
  const iv = randomBytes(ivBytes);
  const cipher = createCipheriv('aes-256-gcm', k, iv, {authTagLength: tagBytes});
  cipher.setAAD(Buffer.from(head));
  const text = Buffer.concat([cipher.update(typeof claims === 'string' ? claims : JSON.stringify(claims)), cipher.final()]);
  return [head, middle, b64(iv), b64(text), b64(cipher.getAuthTag())].join('.');
}

const whole = {sessionId: base.sessionId, userId: base.userId, expires: full.exp};
await add('JWE', true, "as the original's Lambda makes it", await seal(full), whole);
await add('JWE', true, 'typ JWT', await seal(full, {...dir, typ: 'JWT'}), whole);
await add('JWE', true, 'made by hand', byHand(full), whole);
await add('JWE', true, 'header in another order', byHand(full, {header: '{"enc":"A256GCM","alg":"dir"}'}), whole);
await add('JWE', true, 'white space in the header', byHand(full, {header: ' { "alg" : "dir" , "enc" : "A256GCM" } '}), whole);
await add('JWE', true, 'no sub', await seal(without(full, 'sub')), whole);
await add('JWE', true, 'no browserOptions', await seal(without(full, 'browserOptions')), whole);
await add('JWE', true, 'no iat', await seal(without(full, 'iat')), whole);
await add('JWE', true, 'claims that nobody knows', await seal({...full, extra: [1, {a: null}]}), whole);
await add('JWE', true, 'integers above 2^53 in the options', await sealText(JSON.stringify(full).replace('640', '9007199254740993')), whole);
await add('JWE', true, 'expired 29 s ago', await seal({...full, exp: now - 29}), {...whole, expires: now - 29});
await add('JWE', true, 'issued 29 s from now', await seal({...full, iat: now + 29}), whole);
await add('JWE', true, 'good from 29 s from now', await seal({...full, nbf: now + 29}), whole);
await add('JWE', true, 'under the previous secret', await seal(full, dir, keyOf(previous)), whole);
await add('JWE', true, 'user not in ASCII', await seal({...full, userId: 'benutzer-ü'}), {...whole, userId: 'benutzer-ü'});

const good = await seal(full);
const parts = good.split('.');
const join = (...replaced) => parts.map((part, i) => replaced[i] ?? part).join('.');
const flip = (text, at) => text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
await add('JWE', false, 'under an unknown secret', await seal(full, dir, keyOf('{"JWE_SECRET":"somebody-else-0123456789"}')));
await add('JWE', false, 'under the inner value of the secret', await seal(full, dir, keyOf(JSON.parse(secret).JWE_SECRET)));
await add('JWE', false, 'expired 31 s ago', await seal({...full, exp: now - 31}));
await add('JWE', false, 'expired 30 s ago', await seal({...full, exp: now - 30}));
await add('JWE', false, 'no exp', await seal(without(full, 'exp')));
await add('JWE', false, 'exp as a text', await sealText(JSON.stringify({...full, exp: String(full.exp)})));
await add('JWE', false, 'exp null', await sealText(JSON.stringify({...full, exp: null})));
await add('JWE', false, 'exp in milliseconds', await seal({...full, exp: full.exp * 1000}));
await add('JWE', false, 'issued 31 s from now', await seal({...full, iat: now + 31}));
await add('JWE', false, 'good from 31 s from now', await seal({...full, nbf: now + 31}));
await add('JWE', false, 'nbf as a text', await sealText(JSON.stringify({...full, nbf: 'soon'})));
await add('JWE', false, 'no sessionId', await seal(without(full, 'sessionId')));
await add('JWE', false, 'sessionId in capitals', await seal({...without(full, 'sessionId'), SESSIONID: base.sessionId}));
await add('JWE', false, 'sessionId a number', await seal({...full, sessionId: 1}));
await add('JWE', false, 'sessionId with a path', await seal({...full, sessionId: '../ses_1'}));
await add('JWE', false, 'empty sessionId', await seal({...full, sessionId: ''}));
await add('JWE', false, 'no userId', await seal(without(full, 'userId')));
await add('JWE', false, 'claims are a list', byHand('[1]'));
await add('JWE', false, 'claims are null', byHand('null'));
await add('JWE', false, 'claims are no JSON', byHand('hello'));
await add('JWE', false, 'two objects of claims', byHand(JSON.stringify(full) + '{}'));
await add('JWE', false, 'tag of 96 bits', byHand(full, {tagBytes: 12}));
await add('JWE', false, 'IV of 128 bits', byHand(full, {ivBytes: 16}));
await add('JWE', false, 'IV of 64 bits', byHand(full, {ivBytes: 8}));
await add('JWE', false, 'an encrypted key', byHand(full, {middle: b64('key')}));
await add('JWE', false, 'zip', byHand(full, {header: '{"alg":"dir","enc":"A256GCM","zip":"DEF"}'}));
await add('JWE', false, 'crit', byHand(full, {header: '{"alg":"dir","enc":"A256GCM","crit":["exp"],"exp":1}'}));
await add('JWE', false, 'empty crit', byHand(full, {header: '{"alg":"dir","enc":"A256GCM","crit":[]}'}));
await add('JWE', false, 'kid', await seal(full, {...dir, kid: '../../dev/null'}));
await add('JWE', false, 'jku', await seal(full, {...dir, jku: 'https://issuer.example/keys'}));
await add('JWE', false, 'x5u', await seal(full, {...dir, x5u: 'https://issuer.example/certs'}));
await add('JWE', false, 'jwk', await seal(full, {...dir, jwk: {kty: 'oct', k: 'AA'}}));
await add('JWE', false, 'cty', await seal(full, {...dir, cty: 'JWT'}));
await add('JWE', false, 'another typ', await seal(full, {...dir, typ: 'JWE'}));
await add('JWE', false, 'alg twice', byHand(full, {header: '{"alg":"dir","alg":"dir","enc":"A256GCM"}'}));
await add('JWE', false, 'ALG in capitals', byHand(full, {header: '{"ALG":"dir","enc":"A256GCM"}'}));
await add('JWE', false, 'a text behind the header', byHand(full, {header: JSON.stringify(dir) + 'x'}));
await add('JWE', false, 'A128GCM', await new EncryptJWT(full).setProtectedHeader({alg: 'dir', enc: 'A128GCM'}).encrypt(key.subarray(0, 16)));
await add('JWE', false, 'A192GCM', await new EncryptJWT(full).setProtectedHeader({alg: 'dir', enc: 'A192GCM'}).encrypt(key.subarray(0, 24)));
await add('JWE', false, 'A128CBC-HS256', await new EncryptJWT(full).setProtectedHeader({alg: 'dir', enc: 'A128CBC-HS256'}).encrypt(key));
await add('JWE', false, 'A256KW', await new EncryptJWT(full).setProtectedHeader({alg: 'A256KW', enc: 'A256GCM'}).encrypt(key));
await add('JWE', false, 'A256GCMKW', await new EncryptJWT(full).setProtectedHeader({alg: 'A256GCMKW', enc: 'A256GCM'}).encrypt(key));
await add('JWE', false, 'PBES2', await new EncryptJWT(full).setProtectedHeader({alg: 'PBES2-HS256+A128KW', enc: 'A256GCM'}).encrypt(utf8(secret)));
await add('JWE', false, 'header of another token', join((await seal(full, {...dir, typ: 'JWT'})).split('.')[0]));
for (const [i, what] of [[0, 'header'], [2, 'IV'], [3, 'text'], [4, 'tag']]) {
  const replaced = [];
  replaced[i] = flip(parts[i], 5);
  await add('JWE', false, `one character of the ${what} changed`, join(...replaced));
  replaced[i] = '';
  await add('JWE', false, `no ${what}`, join(...replaced));
}
// The tag has 16 bytes: its last character holds four loose bits.
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const last = alphabet.indexOf(parts[4].at(-1));
await add('JWE', false, 'loose bits in the tag', good.slice(0, -1) + alphabet[last | 1]);
await add('JWE', false, 'padded', good + '==');
await add('JWE', false, 'line end inside', good.slice(0, -4) + '\n' + good.slice(-4));
await add('JWE', false, 'line end behind', good + '\n');
await add('JWE', false, 'space before', ' ' + good);
await add('JWE', false, 'four segments', parts.slice(0, 4).join('.'));
await add('JWE', false, 'six segments', good + '.' + parts[4]);
await add('JWE', false, 'over 8 KiB', await seal({...full, browserOptions: {userAgent: 'x'.repeat(9000)}}));
await add('JWE', false, 'signed instead', await new SignJWT({...full, aud: 'wallcrawler'}).setProtectedHeader({alg: 'HS256'}).sign(key));

const signed = {...without(full, 'browserOptions'), aud: 'wallcrawler'};
const sign = (claims, header, k) => new SignJWT(claims).setProtectedHeader(header).sign(k);
await add('HS256', true, 'plain', await sign(signed, {alg: 'HS256'}, utf8(signing)), whole);
await add('HS256', true, 'typ JWT and aud in a list', await sign({...signed, aud: ['x', 'wallcrawler']}, {alg: 'HS256', typ: 'JWT'}, utf8(signing)), whole);
await add('HS256', false, 'another secret', await sign(signed, {alg: 'HS256'}, utf8('another-signing-secret-0123456789')));
await add('HS256', false, 'HS384', await sign(signed, {alg: 'HS384'}, utf8(signing + signing)));
await add('HS256', false, 'HS512', await sign(signed, {alg: 'HS512'}, utf8(signing + signing)));
await add('HS256', false, 'another audience', await sign({...signed, aud: 'other'}, {alg: 'HS256'}, utf8(signing)));
await add('HS256', false, 'no exp', await sign(without(signed, 'exp'), {alg: 'HS256'}, utf8(signing)));
await add('HS256', false, 'alg none', b64('{"alg":"none"}') + '.' + b64(JSON.stringify(signed)) + '.');
await add('HS256', false, 'content not encoded', await new CompactSign(utf8(JSON.stringify(signed).replaceAll('.', ' ')))
  .setProtectedHeader({alg: 'HS256', b64: false, crit: ['b64']}).sign(utf8(signing)).catch(() => 'x.y.z'));

const issued = {...signed, iss: 'https://issuer.example'};
for (const alg of ['ES256', 'RS256', 'EdDSA']) {
  const {privateKey} = keys[alg];
  const kid = `golden-${alg}`;
  await add(alg, true, 'plain', await sign(issued, {alg, kid, typ: 'JWT'}, privateKey), whole);
  await add(alg, true, 'no kid where there is one key', await sign(issued, {alg}, privateKey), whole);
  await add(alg, true, 'user in sub', await sign({...without(issued, 'userId'), sub: 'somebody'}, {alg, kid}, privateKey), {...whole, userId: 'somebody'});
  await add(alg, true, 'access token', await sign(issued, {alg, kid, typ: 'at+jwt'}, privateKey), whole);
  await add(alg, false, 'unknown kid', await sign(issued, {alg, kid: 'somebody'}, privateKey));
  await add(alg, false, 'kid that is a path', await sign(issued, {alg, kid: '../../dev/null'}, privateKey));
  await add(alg, false, 'another issuer', await sign({...issued, iss: 'https://other.example'}, {alg, kid}, privateKey));
  await add(alg, false, 'no issuer', await sign(without(issued, 'iss'), {alg, kid}, privateKey));
  await add(alg, false, 'another audience', await sign({...issued, aud: 'other'}, {alg, kid}, privateKey));
  await add(alg, false, 'no audience', await sign(without(issued, 'aud'), {alg, kid}, privateKey));
  await add(alg, false, 'no exp', await sign(without(issued, 'exp'), {alg, kid}, privateKey));
  await add(alg, false, 'expired 31 s ago', await sign({...issued, exp: now - 31}, {alg, kid}, privateKey));
  await add(alg, false, 'jku', await sign(issued, {alg, kid, jku: 'https://issuer.example/keys'}, privateKey));
  await add(alg, false, 'HS256 under the public key', await sign(issued, {alg: 'HS256', kid}, utf8(JSON.stringify(await exportJWK(keys[alg].publicKey)))));
  await add(alg, false, 'HS256 under our secret', await sign(issued, {alg: 'HS256', kid}, utf8(signing)));
  const another = alg === 'ES256' ? 'EdDSA' : 'ES256';
  await add(alg, false, 'another algorithm of the set', await sign(issued, {alg: another, kid: `golden-${another}`}, keys[another].privateKey));
}
await add('ES256', false, 'another key under the kid', await sign(issued, {alg: 'ES256', kid: 'golden-ES256'}, other.privateKey));

const jwks = {keys: []};
for (const alg of Object.keys(keys)) {
  jwks.keys.push({...await exportJWK(keys[alg].publicKey), kid: `golden-${alg}`, alg, use: 'sig'});
}
console.log(JSON.stringify({
  madeBy: 'npm package jose: npm ci && npm run make, in gen', now, secret, previous, signing, issuer: 'https://issuer.example', jwks, vectors,
}, null, 1));
