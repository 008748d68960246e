package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/wallcrawler/wallcrawler/api/emf"
	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// serveSettings are what serve can be told. The names without our prefix are those of the
// deployments that exist.
func serveSettings() []setting {
	return []setting{
		{section: "Listening and addresses", key: "port", env: []string{"PORT"}, value: 8080, unit: "port", help: "port to listen on"},
		{key: "listen_host", env: []string{"LISTEN_HOST"}, value: "", help: "address to listen on; empty: all"},
		{key: "public_url", env: []string{"PUBLIC_URL"}, value: "", help: "what connect URLs begin with; empty: the host that a request names"},
		{key: "register_url", env: []string{"REGISTER_URL"}, value: "", help: "where containers register: this service as they reach it; empty: this task's own address and REGISTER_PORT or PORT"},
		{key: "register_port", env: []string{"REGISTER_PORT"}, value: 0, unit: "port", help: "one more port, on which containers can register and nothing else is answered, so that a network can keep them from PORT; 0: none, they register at PORT"},
		{key: "replica_addr", env: []string{"REPLICA_ADDR"}, value: "", help: "host:port at which other replicas reach this one; empty: this task's own address and PORT"},
		{key: "metadata", env: []string{"ECS_CONTAINER_METADATA_URI_V4"}, value: "", help: "the task metadata endpoint, set by ECS"},
		{key: "deployment", env: []string{"DEPLOYMENT"}, value: "default", help: "name of this deployment: tags its keys and its tasks (startedBy)"},
		{key: "replica", env: []string{"REPLICA_ID"}, value: "", help: "name of this process; empty: drawn"},

		{section: "Redis", key: "redis_endpoint", env: []string{"REDIS_ENDPOINT"}, value: "", unit: "comma list", help: "host or host:port of Redis, comma list of sentinels or cluster nodes"},
		{key: "redis_tls", env: []string{"REDIS_TLS_ENABLED"}, value: false, help: "speak TLS to Redis"},
		{key: "redis_username", env: []string{"REDIS_USERNAME"}, value: "", help: "ACL user"},
		{key: "redis_password", env: []string{"REDIS_PASSWORD"}, value: "", secret: true, help: "password"},
		{key: "redis_master", env: []string{"REDIS_MASTER_NAME"}, value: "", help: "name of the master that the sentinels in REDIS_ENDPOINT watch"},
		{key: "redis_cluster", env: []string{"REDIS_CLUSTER"}, value: false, help: "a cluster behind one configuration endpoint (several endpoints imply it)"},
		{key: "redis_keyspace_events", env: []string{"REDIS_ENABLE_KEYSPACE_EVENTS"}, value: false, help: "ask Redis to notify of changed documents, where it may be asked"},

		{section: "Secrets, tokens and keys", key: "jwe_secret", env: []string{"JWE_SECRET"}, value: "", secret: true, help: "encrypts session tokens (dir, A256GCM), hashed whole as it is; at least 16 bytes, alike wherever tokens are made or read"},
		{key: "jwe_secret_previous", env: []string{"JWE_SECRET_PREVIOUS"}, value: "", secret: true, help: "accepted too, during rotation"},
		{key: "jwe_secret_arn", env: []string{"JWE_SECRET_ARN"}, value: "", help: "the same in Secrets Manager, both its versions; read again every few minutes"},
		{key: "jwt_secret", env: []string{"JWT_SECRET"}, value: "", secret: true, help: "signs session tokens (HS256); at least 16 bytes, alike on all replicas; needed unless there is a JWE secret"},
		{key: "jwt_secret_previous", env: []string{"JWT_SECRET_PREVIOUS"}, value: "", secret: true, help: "accepted too, during rotation"},
		{key: "jwt_secret_arn", env: []string{"JWT_SECRET_ARN"}, value: "", help: "the same in Secrets Manager"},
		{key: "jwt_jwks", env: []string{"JWT_JWKS"}, value: "", help: "file or https URL of the public keys of somebody else who signs session tokens, instead of JWT_SECRET"},
		{key: "jwt_algorithm", env: []string{"JWT_ALGORITHM"}, value: "", help: "with JWT_JWKS: ES256, RS256 or EdDSA"},
		{key: "jwt_issuer", env: []string{"JWT_ISSUER"}, value: "", help: "with JWT_JWKS: the iss that tokens must name; empty: any"},
		{key: "jwt_audience", env: []string{"JWT_AUDIENCE"}, value: "wallcrawler", help: "with JWT_JWKS: the aud that tokens must name"},
		{key: "container_secret", env: []string{"CONTAINER_SECRET"}, value: "", secret: true, help: "makes containers' tokens; empty: derived from the JWT secret, or else the JWE secret"},
		{key: "container_secret_previous", env: []string{"CONTAINER_SECRET_PREVIOUS"}, value: "", secret: true, help: "accepted too, during rotation"},
		{key: "container_secret_arn", env: []string{"CONTAINER_SECRET_ARN"}, value: "", help: "the same in Secrets Manager"},
		{key: "container_token", env: []string{"CONTAINER_TOKEN"}, value: "", secret: true, help: "one token for all containers that were not launched here; needs CONTAINER_CIDRS; empty: none are taken"},
		{key: "api_keys", env: []string{"API_KEYS"}, value: "", secret: true, unit: "comma list", help: "comma list of key or name:key"},
		{key: "api_keys_secret_arn", env: []string{"API_KEYS_SECRET_ARN"}, value: "", help: "more of them in Secrets Manager, as JSON {\"API_KEYS\":[…]}"},
		{key: "operators", env: []string{"OPERATORS"}, value: "", unit: "comma list", help: "comma list of the names of API keys whose holders see the events of everybody's sessions, and their ids in the plan; others see those of their own, and the fleet's"},
		{key: "api_keys_arn", env: []string{"API_KEYS_ARN"}, value: "", help: "accepted and not used"},
		{key: "secrets_endpoint", env: []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER"}, value: "", help: "another Secrets Manager, for tests; empty: AWS_ENDPOINT_URL, else AWS's own"},

		{section: "ECS and containers", key: "aws_region", env: []string{"AWS_REGION"}, value: "", help: "region of the cluster"},
		{key: "aws_endpoint", env: []string{"AWS_ENDPOINT_URL"}, value: "", help: "another ECS endpoint, for tests"},
		{key: "ecs_cluster", env: []string{"ECS_CLUSTER_NAME"}, value: "", help: "cluster that runs the containers"},
		{key: "task_definition", env: []string{"CONTAINER_TASK_DEF", "BROWSER_TASK_DEFINITION_ARN"}, value: "", help: "task definition of a container"},
		{key: "container_name", env: []string{"TASK_CONTAINER_NAME"}, value: "BrowserContainer", help: "name of the container in it"},
		{key: "container_port", env: []string{"CONTAINER_PORT"}, value: 8080, unit: "port", help: "port that containers listen on"},
		{key: "container_cidrs", env: []string{"CONTAINER_CIDRS"}, value: "", unit: "comma list", help: "comma list of networks that containers are in; empty: any but loopback and link-local"},
		{key: "subnets", env: []string{"CONTAINER_SUBNETS"}, value: "", unit: "comma list", help: "comma list of subnets"},
		{key: "security_groups", env: []string{"CONTAINER_SECURITY_GROUP_ID"}, value: "", unit: "comma list", help: "comma list of security groups"},
		{key: "assign_public_ip", env: []string{"CONTAINER_ASSIGN_PUBLIC_IP"}, value: false, help: "give containers public addresses"},
		{key: "capacity_providers", env: []string{"CAPACITY_PROVIDERS"}, value: "", unit: "comma list", help: "comma list; empty: launch type FARGATE"},

		{section: "Capacity", key: "min_containers", env: []string{"MIN_CONTAINERS"}, value: 2, unit: "containers", help: "containers kept even when idle"},
		{key: "max_containers", env: []string{"MAX_CONTAINERS"}, value: 100, unit: "containers", help: "containers at most"},
		{key: "max_sessions", env: []string{"MAX_SESSIONS_PER_CONTAINER"}, value: 20, unit: "sessions", help: "sessions of each container"},
		{key: "warm_slots", env: []string{"WARM_SLOTS"}, value: 1, unit: "slots", help: "free slots kept beyond demand"},
		{key: "placement", env: []string{"PLACEMENT"}, value: "packed", help: "packed: fill containers; spread: even them out"},
		{key: "tenancy", env: []string{"TENANCY"}, value: "shared", help: "dedicated: a container serves one user only and is retired after its last session"},
		{key: "pool_protocol", env: []string{"POOL_PROTOCOL"}, value: "auto", help: "v1: only containers of the original kind; v2: only ours; auto: the kind that registers first"},
		{key: "expose_task_arn", env: []string{"EXPOSE_TASK_ARN"}, value: false, help: "write tasks' ARNs into session documents, by which the original's Lambdas stop tasks"},
		{key: "start_deadline", env: []string{"START_DEADLINE"}, value: 2 * time.Minute, help: "from a launch to its registration, until starts that were seen tell better (90 s to 5 min)"},
		{key: "max_load", env: []string{"MAX_CONTAINER_LOAD"}, value: 90, unit: "percent", help: "a container whose memory is fuller gets no more sessions, one whose CPU is busier only those for which there has been no other room for 5 s; above 100: all do"},
		{key: "hung_after", env: []string{"HUNG_AFTER"}, value: time.Minute, help: "a container whose task runs, and that answers nobody for this long, is given up: its sessions end container_lost, its task is stopped; at least 30 s, 0: never"},
		{key: "scale_down_hold", env: []string{"SCALE_DOWN_HOLD"}, value: 2 * time.Minute, help: "a container stays empty this long before it is drained"},

		{section: "The life of sessions", key: "first_connect", env: []string{"FIRST_CONNECT_TIMEOUT"}, value: 5 * time.Minute, help: "an API session without keepAlive that nobody connects to ends then"},
		{key: "disconnect_grace", env: []string{"DISCONNECT_GRACE"}, value: 10 * time.Second, help: "from the last client's leaving to the end, unless keepAlive"},
		{key: "lost_grace", env: []string{"LOST_GRACE"}, value: 2 * time.Minute, help: "the same when the relay vanished without a word"},
		{key: "idle_timeout", env: []string{"IDLE_TIMEOUT"}, value: time.Duration(0), help: "a session in which nothing but pings and pongs has moved for this long ends; 0: never"},
		{key: "connect_hold", env: []string{"CONNECT_HOLD"}, value: 25 * time.Second, help: "a client waits this long for its browser before it gets 503"},

		{section: "Clients' connections", key: "max_clients", env: []string{"MAX_CLIENTS"}, value: 0, unit: "clients", help: "clients connected to this replica at most; 0: what the limits of open files and memory (GOMEMLIMIT) allow"},
		{key: "max_clients_per_user", env: []string{"MAX_CLIENTS_PER_USER"}, value: 0, unit: "clients", help: "clients of one user connected to this replica at most; 0: any number"},
		{key: "client_ping", env: []string{"CLIENT_PING"}, value: tunnel.DefaultPing, help: "a client without traffic is pinged this often, so that load balancers leave it alone; at most 25s"},
		{key: "stalled_client", env: []string{"STALLED_CLIENT_TIMEOUT"}, value: tunnel.DefaultStall, help: "a client that takes nothing of what waits for it is closed then (1013); longer ones make vanished clients be found later"},
		{key: "tls_port", env: []string{"TLS_PORT"}, value: 8443, unit: "port", help: "with TLS_CERT_FILE: port on which clients are served by TLS, beside PORT"},
		{key: "tls_cert", env: []string{"TLS_CERT_FILE"}, value: "", help: "certificate (PEM) for TLS_PORT; empty: no TLS, which a load balancer then does"},
		{key: "tls_key", env: []string{"TLS_KEY_FILE"}, value: "", help: "its key (PEM)"},
		{key: "container_tls_name", env: []string{"CONTAINER_TLS_NAME"}, value: "", help: "speak TLS to containers, whose certificate must be good for this name; empty: in the clear"},
		{key: "container_tls_ca", env: []string{"CONTAINER_TLS_CA_FILE"}, value: "", help: "authorities (PEM) of that certificate; empty: the system's"},

		{section: "Stopping and logs", key: "unready_for", env: []string{"DRAIN_UNREADY"}, value: 5 * time.Second, help: "at SIGTERM: unready for this long before connections are refused, for load balancers to notice"},
		{key: "drain_timeout", env: []string{"DRAIN_TIMEOUT"}, value: 100 * time.Second, help: "at SIGTERM: joined clients may go on for this long"},
		{key: "emf", env: []string{"EMF"}, value: false, help: "print metrics for CloudWatch to stdout, in Embedded Metric Format"},
		{key: "emf_interval", env: []string{"EMF_INTERVAL"}, value: emf.DefaultEvery, help: "with EMF: how often"},
		{key: "otlp_endpoint", env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT"}, value: "", help: "where traces of sessions go, by OTLP over HTTP: a base URL, http://127.0.0.1:4318; empty: there are none. The OTEL_* variables of headers and certificates apply"},
		{key: "traces_percent", env: []string{"TRACES_PERCENT"}, value: 100, unit: "percent", help: "with OTEL_EXPORTER_OTLP_ENDPOINT: of all sessions, how many are traced"},
		{key: "log_level", env: []string{"LOG_LEVEL"}, value: "info", help: "debug, info, warn or error"},
	}
}

// agentSettings are what the agent can be told.
func agentSettings() []setting {
	return []setting{
		{key: "container_id", env: []string{"CONTAINER_ID"}, value: "", help: "id of this container: that of its launch"},
		{key: "register_url", env: []string{"PROXY_ENDPOINT"}, value: "", help: "where to register"},
		{key: "token", env: []string{"CONTAINER_TOKEN"}, value: "", secret: true, help: "proves which launch this is"},
		{key: "max_sessions", env: []string{"MAX_SESSIONS"}, value: 20, unit: "sessions", help: "sessions at most"},
		{key: "port", env: []string{"PORT"}, value: 8080, unit: "port", help: "port to listen on"},
		{key: "listen_host", env: []string{"LISTEN_HOST"}, value: "", help: "address to listen on; empty: the task's own, else all"},
		{key: "metadata", env: []string{"ECS_CONTAINER_METADATA_URI_V4"}, value: "", help: "the task metadata endpoint, set by ECS"},
		{key: "warm", env: []string{"WARM_BROWSERS"}, value: 1, unit: "browsers", help: "browsers kept ready"},
		{key: "browser", env: []string{"BROWSER_PATH"}, value: "", help: "Chromium's executable; empty: the first that is found"},
		{key: "browser_args", env: []string{"BROWSER_ARGS"}, value: "", help: "more arguments for each browser, separated by spaces"},
		{key: "no_sandbox", env: []string{"BROWSER_NO_SANDBOX"}, value: false, help: "run browsers without their sandbox also when not root"},
		{key: "tls_cert", env: []string{"AGENT_TLS_CERT_FILE"}, value: "", help: "certificate (PEM) to serve TLS with, as CONTAINER_TLS_NAME of the service wants; empty: in the clear"},
		{key: "tls_key", env: []string{"AGENT_TLS_KEY_FILE"}, value: "", help: "its key (PEM)"},
		{key: "work_dir", env: []string{"AGENT_WORK_DIR"}, value: "", help: "where profiles are kept while their session lives"},
		{key: "drain_timeout", env: []string{"AGENT_DRAIN_TIMEOUT"}, value: 110 * time.Second, help: "at SIGTERM: sessions may go on for this long"},
		{key: "stdin_eof", env: []string{"EXIT_ON_STDIN_EOF"}, value: false, help: "stop at once when standard input ends: nothing outlives a runner that died"},
		{key: "log_level", env: []string{"LOG_LEVEL"}, value: "info", help: "debug, info, warn or error"},
	}
}

// checkTypes tells of values that are not of their setting's type: viper would read them as
// zero.
func (c *config) checkTypes() []error {
	var errs []error
	for _, s := range c.settings {
		text, isText := c.Get(s.key).(string)
		if !isText {
			continue
		}
		var err error
		want := ""
		switch s.value.(type) {
		case int:
			_, err = strconv.Atoi(text)
			want = "a whole number"
		case bool:
			_, err = strconv.ParseBool(text)
			want = "true or false"
		case time.Duration:
			var d time.Duration
			d, err = time.ParseDuration(text)
			want = "a time with its unit, such as 90s or 2m"
			if err == nil && d < 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil {
			if s.secret {
				text = "[hidden]"
			}
			errs = append(errs, fmt.Errorf("%s is %q: it must be %s (from %s)", s.env[0], text, want, c.source[s.key]))
		}
	}
	return errs
}
