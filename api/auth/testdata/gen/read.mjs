// Reads a token with the npm package jose, as the original does: node read.mjs SECRET TOKEN
import {createHash} from 'node:crypto';
import {jwtDecrypt} from 'jose';

const [secret, token] = process.argv.slice(2);
const {payload, protectedHeader} = await jwtDecrypt(token, createHash('sha256').update(secret).digest(), {clockTolerance: 30});
console.log(JSON.stringify({payload, protectedHeader}));
