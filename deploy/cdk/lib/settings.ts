import { Node } from 'constructs';

/** What a deployment may be told, by `-c name=value`. README.md lists them for people. */
export interface Settings {
  deployment: string;

  image?: string; // of the service; undefined: built from this checkout
  browserImage?: string; // of the browsers' containers; undefined: built from this checkout
  architecture: 'ARM64' | 'X86_64';

  vpc?: ExistingVpc; // undefined: a new one
  natGateways: number; // of the new one

  redis: 'nodes' | 'serverless';
  redisNodeType: string;
  redisReplicas: number;

  certificateArn?: string; // undefined: plain HTTP, for trials
  domainName?: string; // of the certificate
  allowFrom: string[]; // networks that reach the load balancer

  serviceCpu: number;
  serviceMemory: number; // MiB
  minReplicas: number;
  maxReplicas: number;
  connectionsPerReplica: number;
  handshakesPerMinute: number; // of each replica

  browserCpu: number;
  browserMemory: number; // MiB
  minContainers: number;
  maxContainers: number;
  sessionsPerContainer: number;
  capacityProviders: string[];
  egressPorts: number[]; // that pages may connect to

  sessionFunctions: boolean; // the Lambda functions of the original
  logDays: number;
  alarmEmail?: string;

  tracesEndpoint?: URL; // of a collector of OpenTelemetry; undefined: no traces
  tracesHeadersSecretArn?: string; // whose text is the headers of the exporter: credentials
  tracesPercent: number; // of sessions
}

export interface ExistingVpc {
  vpcId: string;
  vpcCidrBlock: string;
  availabilityZones: string[];
  publicSubnetIds: string[];
  privateSubnetIds: string[];
}

/** Retention in CloudWatch Logs is one of these. */
const retentions = [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/** Reads and checks the settings. Everything that is wrong is told at once. */
export function readSettings(node: Node): Settings {
  const wrong: string[] = [];
  const text = (name: string): string | undefined => {
    const value: unknown = node.tryGetContext(name);
    return value === undefined || value === '' ? undefined : String(value);
  };
  const list = (name: string, otherwise: string): string[] =>
    (text(name) ?? otherwise).split(',').map((s) => s.trim()).filter((s) => s !== '');
  const whole = (name: string, otherwise: number, least: number): number => {
    const n = Number(text(name) ?? otherwise);
    if (!Number.isInteger(n) || n < least) {
      wrong.push(`${name} is ${text(name)}: it must be a whole number, ${least} or more`);
    }
    return n;
  };
  const choice = <T extends string>(name: string, words: readonly T[]): T => {
    const value = (text(name) ?? words[0]) as T;
    if (!words.includes(value)) {
      wrong.push(`${name} is ${value}: use one of ${words.join(', ')}`);
    }
    return value;
  };
  const endpoint = (name: string): URL | undefined => {
    const value = text(name);
    if (value === undefined) {
      return undefined;
    }
    const url = URL.canParse(value) ? new URL(value) : undefined;
    if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.username + url.password + url.search + url.hash !== '') {
      wrong.push(`${name} must be a URL like http://collector.example.com:4318, without user, query and fragment`);
      return undefined;
    }
    return url;
  };

  const s: Settings = {
    deployment: text('deployment') ?? 'wallcrawler',
    image: text('image'),
    browserImage: text('browserImage'),
    architecture: choice('architecture', ['X86_64', 'ARM64']),
    vpc: existingVpc(text, list),
    natGateways: whole('natGateways', 1, 1),
    redis: choice('redis', ['nodes', 'serverless']),
    redisNodeType: text('redisNodeType') ?? 'cache.t4g.small',
    redisReplicas: whole('redisReplicas', 1, 0),
    certificateArn: text('certificateArn'),
    domainName: text('domainName'),
    allowFrom: list('allowFrom', '0.0.0.0/0'),
    serviceCpu: whole('serviceCpu', 1024, 256),
    serviceMemory: whole('serviceMemory', 2048, 512),
    minReplicas: whole('minReplicas', 2, 1),
    maxReplicas: whole('maxReplicas', 10, 1),
    connectionsPerReplica: whole('connectionsPerReplica', 2000, 1),
    handshakesPerMinute: whole('handshakesPerMinute', 6000, 1),
    browserCpu: whole('browserCpu', 4096, 256),
    browserMemory: whole('browserMemory', 8192, 512),
    minContainers: whole('minContainers', 1, 0),
    maxContainers: whole('maxContainers', 10, 1),
    sessionsPerContainer: whole('sessionsPerContainer', 10, 1),
    capacityProviders: list('capacityProviders', 'FARGATE'),
    egressPorts: list('egressPorts', '80,443').map(Number),
    sessionFunctions: choice('sessionFunctions', ['true', 'false']) === 'true',
    logDays: whole('logDays', 30, 1),
    alarmEmail: text('alarmEmail'),
    tracesEndpoint: endpoint('tracesEndpoint'),
    tracesHeadersSecretArn: text('tracesHeadersSecretArn'),
    tracesPercent: whole('tracesPercent', 100, 0),
  };

  // A user of ElastiCache is named after it, with an ending, and those have 40 characters at most.
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(s.deployment) || s.deployment.length > 24) {
    wrong.push(`deployment is ${s.deployment}: use up to 24 lower-case letters, digits and single hyphens, beginning with a letter`);
  }
  if ((s.certificateArn === undefined) !== (s.domainName === undefined)) {
    wrong.push('certificateArn and domainName belong together: the certificate must be good for the name');
  }
  for (const name of s.capacityProviders) {
    if (name !== 'FARGATE' && name !== 'FARGATE_SPOT') {
      wrong.push(`capacityProviders names ${name}: the cluster has FARGATE and FARGATE_SPOT`);
    }
  }
  if (s.capacityProviders.length === 0) {
    wrong.push('capacityProviders is empty: give FARGATE, FARGATE_SPOT or both');
  }
  if (s.allowFrom.length === 0 || s.allowFrom.some((cidr) => !/^\d+\.\d+\.\d+\.\d+\/\d+$/.test(cidr))) {
    wrong.push(`allowFrom is ${s.allowFrom.join(',')}: it must be networks like 203.0.113.0/24`);
  }
  if (s.egressPorts.length === 0 || s.egressPorts.some((p) => !Number.isInteger(p) || p < 1 || p > 65535)) {
    wrong.push('egressPorts must be a comma list of ports');
  }
  if (s.maxReplicas < s.minReplicas) {
    wrong.push(`maxReplicas is ${s.maxReplicas}, below minReplicas (${s.minReplicas})`);
  }
  if (s.maxContainers < s.minContainers) {
    wrong.push(`maxContainers is ${s.maxContainers}, below minContainers (${s.minContainers})`);
  }
  if (s.sessionsPerContainer > 1000) {
    wrong.push(`sessionsPerContainer is ${s.sessionsPerContainer}: the service takes 1 to 1000`);
  }
  if (s.tracesHeadersSecretArn !== undefined && s.tracesEndpoint === undefined) {
    wrong.push('tracesHeadersSecretArn is of no use without tracesEndpoint');
  }
  if (s.tracesPercent > 100) {
    wrong.push(`tracesPercent is ${s.tracesPercent}: it must be 0 to 100`);
  }
  if (!retentions.includes(s.logDays)) {
    wrong.push(`logDays is ${s.logDays}: CloudWatch Logs keeps for one of ${retentions.join(', ')} days`);
  }
  if (s.vpc !== undefined) {
    wrong.push(...wrongWithVpc(s.vpc));
  }
  if (wrong.length > 0) {
    throw new Error(`settings:\n  ${wrong.join('\n  ')}`);
  }
  return s;
}

function existingVpc(
  text: (name: string) => string | undefined,
  list: (name: string, otherwise: string) => string[],
): ExistingVpc | undefined {
  const vpcId = text('vpcId');
  if (vpcId === undefined) {
    return undefined;
  }
  return {
    vpcId,
    vpcCidrBlock: text('vpcCidr') ?? '',
    availabilityZones: list('availabilityZones', ''),
    publicSubnetIds: list('publicSubnetIds', ''),
    privateSubnetIds: list('privateSubnetIds', ''),
  };
}

/** Nothing is looked up in the account, so all of a VPC has to be told. */
function wrongWithVpc(vpc: ExistingVpc): string[] {
  const wrong: string[] = [];
  const zones = vpc.availabilityZones.length;
  if (!/^\d+\.\d+\.\d+\.\d+\/\d+$/.test(vpc.vpcCidrBlock)) {
    wrong.push('vpcCidr must be the network of vpcId, like 10.0.0.0/16');
  }
  if (zones < 2) {
    wrong.push('availabilityZones must name two zones or more: a load balancer needs them');
  }
  if (vpc.publicSubnetIds.length !== zones || vpc.privateSubnetIds.length !== zones) {
    wrong.push('publicSubnetIds and privateSubnetIds must name one subnet for each of availabilityZones, in that order');
  }
  return wrong;
}
