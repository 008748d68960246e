import { RemovalPolicy } from 'aws-cdk-lib';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as logs from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { image, runtimePlatform } from './images';
import { containerPort } from './network';
import { Settings } from './settings';

/** The name by which the service gives a container its environment (TASK_CONTAINER_NAME). */
export const containerName = 'BrowserContainer';

/** Longest that Fargate waits between SIGTERM and SIGKILL; AGENT_DRAIN_TIMEOUT fits in. */
export const longestStop = 120;

/** The task definition of containers with browsers. The service starts its tasks. */
export class Browsers extends Construct {
  readonly definition: ecs.CfnTaskDefinition;
  readonly executionRole: iam.Role;

  constructor(scope: Construct, id: string, settings: Settings, retention: logs.RetentionDays) {
    super(scope, id);
    const log = new logs.LogGroup(this, 'Log', { retention, removalPolicy: RemovalPolicy.DESTROY });
    const task = new ecs.FargateTaskDefinition(this, 'Task', {
      family: `${settings.deployment}-browsers`,
      cpu: settings.browserCpu,
      memoryLimitMiB: settings.browserMemory,
      runtimePlatform: runtimePlatform(settings),
      // Profiles, and what browsers share: Fargate's /dev/shm has 64 MiB, and they keep off it.
      volumes: [{ name: 'tmp' }],
    });
    const container = task.addContainer(containerName, {
      containerName,
      image: image('browserImage', browserDockerfile, settings),
      command: ['agent'],
      user: '65532:65532',
      readonlyRootFilesystem: true,
      environment: {
        AGENT_DRAIN_TIMEOUT: '110s',
        AGENT_WORK_DIR: '/tmp',
        // The sandbox wants user namespaces or CAP_SYS_ADMIN, and Fargate gives neither. The
        // task is the boundary: README.md, Security.
        BROWSER_NO_SANDBOX: 'true',
        HOME: '/tmp',
        TMPDIR: '/tmp',
        WARM_BROWSERS: '1',
      },
      portMappings: [{ containerPort }],
      ulimits: [{ name: ecs.UlimitName.NOFILE, softLimit: 65535, hardLimit: 65535 }],
      linuxParameters: parameters(this),
      logging: ecs.LogDrivers.awsLogs({ logGroup: log, streamPrefix: 'browsers', mode: ecs.AwsLogDriverMode.NON_BLOCKING }),
    });
    container.addMountPoints({ sourceVolume: 'tmp', containerPath: '/tmp', readOnly: false });

    this.definition = task.node.defaultChild as ecs.CfnTaskDefinition;
    this.definition.addPropertyOverride('ContainerDefinitions.0.StopTimeout', longestStop);
    // Pages must find no credentials: a role that is not there cannot be stolen.
    task.node.tryRemoveChild('TaskRole');
    this.definition.addPropertyDeletionOverride('TaskRoleArn');
    this.executionRole = task.obtainExecutionRole() as iam.Role;
  }
}

/** Dockerfile of the browsers' image, in the checkout. */
export const browserDockerfile = 'Dockerfile.browser';

function parameters(scope: Construct): ecs.LinuxParameters {
  const linux = new ecs.LinuxParameters(scope, 'Linux', { initProcessEnabled: true }); // reaps what browsers leave
  linux.dropCapabilities(ecs.Capability.ALL);
  return linux;
}
