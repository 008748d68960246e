import { Duration } from 'aws-cdk-lib';
import * as cloudwatch from 'aws-cdk-lib/aws-cloudwatch';
import * as actions from 'aws-cdk-lib/aws-cloudwatch-actions';
import * as elb from 'aws-cdk-lib/aws-elasticloadbalancingv2';
import * as sns from 'aws-cdk-lib/aws-sns';
import * as subscriptions from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';
import { Functions } from './functions';
import { Redis } from './redis';
import { Service } from './service';
import { Settings } from './settings';

/** Where the service's own metrics are: api/emf prints them. */
export const namespace = 'WallCrawler';

/** Where people find what to do. */
const runbook = 'https://github.com/wallcrawler/wallcrawler/blob/main/docs/runbook.md';

const minute = Duration.minutes(1);

/** A metric that every replica prints once a minute. */
function own(settings: Settings, metricName: string, statistic: string): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace, metricName, statistic, period: minute, dimensionsMap: { Deployment: settings.deployment },
  });
}

/** The number of replicas follows what they carry. */
export function scale(service: Service, settings: Settings): void {
  const replicas = service.service.autoScaleTaskCount({ minCapacity: settings.minReplicas, maxCapacity: settings.maxReplicas });
  const follow = (id: string, metricName: string, targetValue: number) =>
    replicas.scaleToTrackCustomMetric(id, {
      metric: own(settings, metricName, 'Average'), // over replicas
      targetValue,
      scaleOutCooldown: Duration.seconds(60),
      // Each step cuts the clients of a replica, which come back through others: slowly, then.
      scaleInCooldown: Duration.minutes(15),
    });
  follow('Connections', 'RelayConnections', settings.connectionsPerReplica);
  follow('Handshakes', 'Handshakes', settings.handshakesPerMinute);
  replicas.scaleOnCpuUtilization('Cpu', {
    targetUtilizationPercent: 60, scaleOutCooldown: Duration.seconds(60), scaleInCooldown: Duration.minutes(15),
  });
}

interface Rule {
  metric: cloudwatch.Metric;
  threshold: number;
  minutes: number; // in a row, each past the threshold; with `together`, whose sum is
  together?: boolean;
  what: string; // is wrong, and where to look
  heading: string; // of docs/runbook.md, where the rest is
  below?: boolean; // wrong below the threshold, and without data; else above or at it
}

/** Alarms for what a person has to see to. They speak to a topic. */
export class Alarms extends Construct {
  readonly topic: sns.Topic;

  constructor(scope: Construct, id: string, settings: Settings, parts: { service: Service; redis: Redis; functions: Functions }) {
    super(scope, id);
    const { service, redis, functions } = parts;
    this.topic = new sns.Topic(this, 'Topic', { displayName: `WallCrawler ${settings.deployment}` });
    if (settings.alarmEmail !== undefined) {
      this.topic.addSubscription(new subscriptions.EmailSubscription(settings.alarmEmail));
    }
    const redisMetric = (node: string, metricName: string, statistic: string) => new cloudwatch.Metric({
      namespace: 'AWS/ElastiCache', metricName, statistic, period: minute, dimensionsMap: { [redis.dimension]: node },
    });
    const rules: Record<string, Rule> = {
      NoLeader: {
        metric: own(settings, 'Leader', 'Maximum'), threshold: 1, minutes: 3, below: true,
        what: 'no replica leads: sessions get no browser. Look at the log of the replicas and at Redis',
        heading: 'WallcrawlerNoLeader',
      },
      Waiting: {
        metric: own(settings, 'QueueDepth', 'Minimum'), threshold: 1, minutes: 5,
        what: 'sessions have been waiting for a container for minutes: GET /v1/plan says why',
        heading: 'WallcrawlerSessionsWait',
      },
      Lost: {
        metric: own(settings, 'SessionsLost', 'Sum'), threshold: 5, minutes: 5, together: true,
        what: 'sessions fail, crash or lose their container: the reasons are in wallcrawler_session_end_total',
        heading: 'WallcrawlerLostBurns',
      },
      StaleView: {
        metric: own(settings, 'ViewAge', 'Maximum'), threshold: 30, minutes: 3,
        what: 'a replica has not read Redis for half a minute: clients that are joined go on, nobody else is',
        heading: 'WallcrawlerViewStale',
      },
      EcsCalls: {
        // Launches that ECS refuses are tried one at a time, half a minute apart and more.
        metric: own(settings, 'EcsErrors', 'Sum'), threshold: 4, minutes: 5, together: true,
        what: 'calls of ECS fail, are throttled or refused: permissions, quotas, capacity of the zone',
        heading: 'WallcrawlerECSFails',
      },
      Panics: {
        metric: own(settings, 'Panics', 'Sum'), threshold: 1, minutes: 1,
        what: 'a request has met a fault of ours: the log has its trace',
        heading: 'WallcrawlerPanics',
      },
      Unhealthy: {
        metric: service.targets.metrics.unhealthyHostCount({ period: minute, statistic: 'Maximum' }), threshold: 1, minutes: 5,
        what: 'a replica does not answer /started',
        heading: 'WallcrawlerReplicaDown',
      },
      Errors: {
        metric: service.targets.metrics.httpCodeTarget(elb.HttpCodeTarget.TARGET_5XX_COUNT, { period: minute, statistic: 'Sum' }),
        threshold: 100, minutes: 5, together: true,
        what: 'requests are answered with 5xx, 503 for want of capacity among them',
        heading: 'WallcrawlerAvailabilityBurns',
      },
    };
    for (const fn of functions.all) {
      rules[`Function${fn.node.id}`] = {
        metric: fn.metricErrors({ period: minute, statistic: 'Sum' }), threshold: 3, minutes: 5, together: true,
        what: `the function ${fn.node.id} fails`,
        heading: 'FunctionFails',
      };
    }
    if (functions.api !== undefined) {
      rules.FunctionsApi = { // a function that catches its faults fails for its callers only
        metric: functions.api.metricServerError({ period: minute, statistic: 'Sum' }), threshold: 5, minutes: 5, together: true,
        what: 'the functions answer with 5xx: their logs say why; Redis may be out of their reach',
        heading: 'FunctionsApiFails',
      };
    }
    if (!redis.cluster) { // a serverless cache has neither
      redis.nodes.forEach((node, i) => { // each may be the primary
        rules[`RedisCpu${i + 1}`] = {
          metric: redisMetric(node, 'EngineCPUUtilization', 'Average'), threshold: 80, minutes: 5,
          what: 'Redis is short of CPU: take a larger redisNodeType',
          heading: 'RedisCpuHigh',
        };
        rules[`RedisMemory${i + 1}`] = {
          metric: redisMetric(node, 'DatabaseMemoryUsagePercentage', 'Maximum'), threshold: 75, minutes: 5,
          what: 'Redis is running out of memory, and then refuses writes: take a larger redisNodeType',
          heading: 'RedisMemoryHigh',
        };
      });
    }
    for (const [name, rule] of Object.entries(rules)) {
      const alarm = new cloudwatch.Alarm(this, name, {
        alarmDescription: `${rule.what}. ${runbook}#${rule.heading.toLowerCase()}`,
        metric: rule.together ? rule.metric.with({ period: Duration.minutes(rule.minutes) }) : rule.metric,
        threshold: rule.threshold,
        evaluationPeriods: rule.together ? 1 : rule.minutes,
        comparisonOperator: rule.below
          ? cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
          : cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        treatMissingData: rule.below ? cloudwatch.TreatMissingData.BREACHING : cloudwatch.TreatMissingData.NOT_BREACHING,
      });
      alarm.addAlarmAction(new actions.SnsAction(this.topic));
      alarm.addOkAction(new actions.SnsAction(this.topic));
    }
  }
}
