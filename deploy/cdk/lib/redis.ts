import { Fn } from 'aws-cdk-lib';
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as elasticache from 'aws-cdk-lib/aws-elasticache';
import * as secretsmanager from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';
import { Network } from './network';
import { Secrets } from './secrets';
import { Settings } from './settings';

/**
 * What each user of Redis may do. The service has everything but what empties, configures or
 * blocks a server; CLUSTER and the like are what a client of a cluster asks at the start.
 */
export const accessStrings = {
  service: 'on ~* &* +@all -@admin -@dangerous +info +role +cluster|slots +cluster|shards +cluster|nodes +cluster|info',
  sessions: 'on ~session:* -@all +get +setex +scan +ping',
  wake: 'on ~wallcrawler:* -@all +xadd +ping',
};

/** Redis, encrypted at rest and on the way, with a user for each kind of client. */
export class Redis extends Construct {
  readonly endpoint: string; // host:port
  readonly cluster: boolean; // clients must speak the cluster's dialect
  readonly nodes: string[]; // in dimensions of CloudWatch
  readonly dimension: string;

  constructor(scope: Construct, id: string, settings: Settings, network: Network, secrets: Secrets) {
    super(scope, id);
    const user = (name: keyof typeof accessStrings, password: secretsmanager.Secret) =>
      new elasticache.CfnUser(this, `User-${name}`, {
        engine: 'valkey',
        userId: `${settings.deployment}-${name}`,
        userName: name,
        accessString: accessStrings[name],
        // A reference that CloudFormation resolves: the password is in no template.
        passwords: [password.secretValue.unsafeUnwrap()],
      });
    const users = [
      user('service', secrets.redisService),
      user('sessions', secrets.redisSessions),
      user('wake', secrets.redisWake),
    ];
    const group = new elasticache.CfnUserGroup(this, 'Users', {
      engine: 'valkey',
      userGroupId: settings.deployment,
      userIds: users.map((u) => u.ref),
    });
    const subnets = network.vpc.selectSubnets({ subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS }).subnetIds;

    this.cluster = settings.redis === 'serverless';
    if (this.cluster) {
      const cache = new elasticache.CfnServerlessCache(this, 'Serverless', {
        engine: 'valkey',
        majorEngineVersion: '8',
        serverlessCacheName: settings.deployment,
        description: `WallCrawler ${settings.deployment}`,
        securityGroupIds: [network.redis.securityGroupId],
        subnetIds: subnets,
        userGroupId: group.ref,
      });
      this.endpoint = Fn.join(':', [cache.attrEndpointAddress, cache.attrEndpointPort]);
      this.nodes = [cache.ref];
      this.dimension = 'clusterId';
      return;
    }
    const parameters = new elasticache.CfnParameterGroup(this, 'Parameters', {
      cacheParameterGroupFamily: 'valkey8',
      description: `WallCrawler ${settings.deployment}`,
      properties: {
        'notify-keyspace-events': 'K$gxe', // what the service listens to
        'maxmemory-policy': 'noeviction', // a session's document must not vanish before its time
      },
    });
    const nodes = new elasticache.CfnReplicationGroup(this, 'Nodes', {
      replicationGroupId: settings.deployment,
      replicationGroupDescription: `WallCrawler ${settings.deployment}`,
      engine: 'valkey',
      engineVersion: '8.0',
      cacheNodeType: settings.redisNodeType,
      numNodeGroups: 1,
      replicasPerNodeGroup: settings.redisReplicas,
      automaticFailoverEnabled: settings.redisReplicas > 0,
      multiAzEnabled: settings.redisReplicas > 0,
      cacheParameterGroupName: parameters.ref,
      cacheSubnetGroupName: new elasticache.CfnSubnetGroup(this, 'Subnets', {
        description: `WallCrawler ${settings.deployment}`,
        subnetIds: subnets,
      }).ref,
      securityGroupIds: [network.redis.securityGroupId],
      transitEncryptionEnabled: true,
      transitEncryptionMode: 'required',
      atRestEncryptionEnabled: true,
      autoMinorVersionUpgrade: true,
      userGroupIds: [group.ref],
      snapshotRetentionLimit: 0, // every part can be made again from the others: docs/state.md
    });
    // One shard, cluster mode off: the parameter group says so, and the endpoint follows the primary.
    this.endpoint = Fn.join(':', [nodes.attrPrimaryEndPointAddress, nodes.attrPrimaryEndPointPort]);
    this.nodes = Array.from({ length: 1 + settings.redisReplicas }, (_, i) => `${settings.deployment}-${String(i + 1).padStart(3, '0')}`);
    this.dimension = 'CacheClusterId';
  }
}
