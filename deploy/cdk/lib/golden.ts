import * as fs from 'node:fs';
import * as path from 'node:path';
import { Template } from 'aws-cdk-lib/assertions';
import { makeApp } from './stack';

const directory = path.resolve(__dirname, '..', '..', 'golden');

/** Deployments whose templates are kept, by the settings that they are made of. */
export const kept: Record<string, Record<string, string>> = {
  // What no settings make, but for the images: theirs would be built.
  'default': {},
  // Everything that settings change about what there is.
  'full': {
    deployment: 'blue',
    architecture: 'ARM64',
    vpcId: 'vpc-0123456789abcdef0', vpcCidr: '10.20.0.0/16', availabilityZones: 'eu-central-1a,eu-central-1b',
    publicSubnetIds: 'subnet-00000000000000001,subnet-00000000000000002', privateSubnetIds: 'subnet-00000000000000003,subnet-00000000000000004',
    redis: 'serverless',
    certificateArn: 'arn:aws:acm:eu-central-1:123456789012:certificate/0123', domainName: 'browsers.example.com',
    capacityProviders: 'FARGATE_SPOT,FARGATE',
    egressPorts: '443',
    sessionFunctions: 'false',
    alarmEmail: 'operators@example.com',
    tracesEndpoint: 'http://collector.example.com:4318',
    tracesHeadersSecretArn: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:collector-AbCdEf',
    tracesPercent: '10',
  },
};

export const images = { image: 'registry.example.com/wallcrawler:1', browserImage: 'registry.example.com/wallcrawler-browser:1' };

/** The template of those settings, as text. Digests of assets are left out: they are of the functions' code. */
export function synthesise(settings: Record<string, string>): string {
  const { stack } = makeApp({ ...images, ...settings });
  return JSON.stringify(Template.fromStack(stack).toJSON(), null, 2).replace(/\b[0-9a-f]{64}\b/g, 'DIGEST') + '\n';
}

export function goldenFile(name: string): string {
  return path.join(directory, `${name}.template.json`);
}

export function writeGolden(): void {
  for (const [name, settings] of Object.entries(kept)) {
    fs.writeFileSync(goldenFile(name), synthesise(settings));
  }
}
