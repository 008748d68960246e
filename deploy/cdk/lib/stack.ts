import { Annotations, App, CfnOutput, Stack, StackProps } from 'aws-cdk-lib';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import * as logs from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { Browsers } from './browsers';
import { Functions } from './functions';
import { Network } from './network';
import { Redis } from './redis';
import { Secrets } from './secrets';
import { Service } from './service';
import { readSettings } from './settings';
import { Alarms, scale } from './watch';

/** One deployment, whole. It is one stack so that it comes, changes and goes as one. */
export class WallCrawler extends Stack {
  constructor(scope: Construct, id: string, props?: StackProps) {
    super(scope, id, props);
    const settings = readSettings(this.node);
    const retention = settings.logDays as logs.RetentionDays;

    const network = new Network(this, 'Network', settings);
    const secrets = new Secrets(this, 'Secrets');
    const redis = new Redis(this, 'Redis', settings, network, secrets);
    const cluster = new ecs.Cluster(this, 'Cluster', { vpc: network.vpc, enableFargateCapacityProviders: true });
    const browsers = new Browsers(this, 'Browsers', settings, retention);
    const service = new Service(this, 'Service', settings, { network, secrets, redis, browsers, cluster }, retention);
    const functions = new Functions(this, 'Functions', settings,
      { network, secrets, redis, cluster, connectUrl: service.connectUrl }, retention);
    scale(service, settings);
    const alarms = new Alarms(this, 'Alarms', settings, { service, redis, functions });

    if (settings.certificateArn === undefined) {
      Annotations.of(this).addWarningV2('wallcrawler:plainHttp',
        'without certificateArn and domainName, API keys and tokens cross the internet in the clear: for trials only');
    }
    new CfnOutput(this, 'Url', { value: service.publicUrl, description: 'API, dashboard, and where clients connect' });
    new CfnOutput(this, 'ApiKeysSecret', { value: secrets.apiKeys.secretArn, description: 'secret with the API keys' });
    new CfnOutput(this, 'AlarmTopic', { value: alarms.topic.topicArn });
    if (functions.apiUrl !== undefined) {
      new CfnOutput(this, 'SessionsApi', { value: functions.apiUrl, description: 'POST /sessions as the original has it' });
    }
  }
}

/** Ways of CDK that are not its default, for everyone who makes the app alike. */
const ways = {
  '@aws-cdk/aws-iam:minimizePolicies': false, // statements keep their names
  '@aws-cdk/aws-ecs:arnFormatIncludesClusterName': true,
  '@aws-cdk/aws-ecs:disableExplicitDeploymentControllerForCircuitBreaker': true,
  '@aws-cdk/aws-ecs:removeDefaultDeploymentAlarm': true,
  '@aws-cdk/core:checkSecretUsage': true,
  '@aws-cdk/customresources:installLatestAwsSdkDefault': false,
};

export function makeApp(context: Record<string, string> = {}): { app: App; stack: WallCrawler } {
  const app = new App({ context: { ...ways, ...context }, analyticsReporting: false });
  return { app, stack: new WallCrawler(app, 'WallCrawler') };
}
