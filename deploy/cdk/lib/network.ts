import * as ec2 from 'aws-cdk-lib/aws-ec2';
import { Construct } from 'constructs';
import { Settings } from './settings';

/** Ports that processes listen on; the defaults of the service and of the agent. */
export const servicePort = 8080;
export const containerPort = 8080;

/** Port of the service on which containers register, and which answers nothing else. */
export const registerPort = 8081;

/** Where everything is, and who may speak to whom. Nothing is open that is not named here. */
export class Network extends Construct {
  readonly vpc: ec2.IVpc;
  readonly balancer: ec2.SecurityGroup;
  readonly service: ec2.SecurityGroup;
  readonly browsers: ec2.SecurityGroup;
  readonly redis: ec2.SecurityGroup;
  readonly functions: ec2.SecurityGroup;

  constructor(scope: Construct, id: string, settings: Settings) {
    super(scope, id);
    this.vpc = settings.vpc === undefined ? this.newVpc(settings) : ec2.Vpc.fromVpcAttributes(this, 'Vpc', settings.vpc);

    const group = (name: string, description: string) =>
      new ec2.SecurityGroup(this, name, { vpc: this.vpc, description, allowAllOutbound: false });
    this.balancer = group('BalancerGroup', 'WallCrawler: load balancer');
    this.service = group('ServiceGroup', 'WallCrawler: replicas of the service');
    this.browsers = group('BrowsersGroup', 'WallCrawler: containers with browsers');
    this.redis = group('RedisGroup', 'WallCrawler: Redis');
    this.functions = group('FunctionsGroup', 'WallCrawler: Lambda functions');

    const allow = (from: ec2.SecurityGroup, to: ec2.SecurityGroup, ports: ec2.Port, what: string) => {
      to.addIngressRule(from, ports, what);
      from.addEgressRule(to, ports, what);
    };
    const web = settings.certificateArn === undefined ? [80] : [80, 443];
    for (const cidr of settings.allowFrom) {
      for (const port of web) {
        this.balancer.addIngressRule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(port), 'clients');
      }
    }
    allow(this.balancer, this.service, ec2.Port.tcp(servicePort), 'clients, through the load balancer');
    allow(this.service, this.service, ec2.Port.tcp(servicePort), 'clients that another replica passes on');
    // Not servicePort: pages in browsers would find metrics, the API and other replicas' doors there.
    allow(this.browsers, this.service, ec2.Port.tcp(registerPort), 'registration of containers');
    allow(this.service, this.browsers, ec2.Port.tcp(containerPort), 'links and clients');
    allow(this.service, this.redis, redisPorts(settings), 'state');
    allow(this.functions, this.redis, redisPorts(settings), 'documents and hints');
    this.service.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'ECS, Secrets Manager, images, logs');
    const collector = settings.tracesEndpoint;
    if (collector !== undefined) {
      const port = Number(collector.port) || (collector.protocol === 'https:' ? 443 : 80);
      if (port !== 443) {
        this.service.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(port), 'traces');
      }
    }
    this.functions.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'Secrets Manager');
    for (const port of settings.egressPorts) {
      this.browsers.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(port), 'pages');
    }
    if (!settings.egressPorts.includes(443)) {
      this.browsers.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'images and logs');
    }
  }

  private newVpc(settings: Settings): ec2.IVpc {
    return new ec2.Vpc(this, 'Vpc', {
      maxAzs: 2,
      natGateways: settings.natGateways,
      restrictDefaultSecurityGroup: false, // nothing uses it, and closing it takes a function with a role of its own
      subnetConfiguration: [
        { name: 'Public', subnetType: ec2.SubnetType.PUBLIC, cidrMask: 24 },
        { name: 'Private', subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS, cidrMask: 19 }, // an address for each task
      ],
      // Layers of images come from S3, and would otherwise pass through the NAT gateway.
      gatewayEndpoints: { S3: { service: ec2.GatewayVpcEndpointAwsService.S3 } },
    });
  }
}

/** Serverless has a second port, for reads from replicas; clients of a cluster may be sent there. */
function redisPorts(settings: Settings): ec2.Port {
  return settings.redis === 'serverless' ? ec2.Port.tcpRange(6379, 6380) : ec2.Port.tcp(6379);
}
