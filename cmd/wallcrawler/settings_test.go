package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// original is the environment of the system that exists, as its stack sets it.
func original() map[string]string {
	return map[string]string{
		"PORT": "8080", "REDIS_ENDPOINT": "redis.internal", "REDIS_TLS_ENABLED": "true", "REDIS_PASSWORD": "canary-redis",
		"JWE_SECRET_ARN":              "arn:aws:secretsmanager:us-east-1:123456789012:secret:jwe",
		"API_KEYS_SECRET_ARN":         "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys",
		"API_KEYS_ARN":                "/wallcrawler/api-keys",
		"ECS_CLUSTER_NAME":            "browsers",
		"CONTAINER_TASK_DEF":          "arn:aws:ecs:us-east-1:123456789012:task-definition/browser:7",
		"CONTAINER_SUBNETS":           "subnet-1,subnet-2",
		"CONTAINER_SECURITY_GROUP_ID": "sg-1", "MIN_CONTAINERS": "2", "MAX_CONTAINERS": "100", "MAX_SESSIONS_PER_CONTAINER": "20",
		"AWS_REGION": "us-east-1", "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x", "ECS_AGENT_URI": "http://169.254.170.2/api/x",
	}
}

// least is the least environment that serves.
func least() map[string]string {
	return map[string]string{
		"REDIS_ENDPOINT": "redis.internal", "ECS_CLUSTER_NAME": "browsers", "CONTAINER_TASK_DEF": "browser", "REGISTER_URL": "http://lb.internal",
		"JWT_SECRET": "canary-0123456789ab", "API_KEYS": "alice:canary-key-of-alice",
	}
}

// with changes an environment; an empty value takes a variable away.
func with(env map[string]string, edits ...string) map[string]string {
	for i := 0; i < len(edits); i += 2 {
		env[edits[i]] = edits[i+1]
	}
	return env
}

func readEnv(env map[string]string) (*config, options, error) {
	var environ []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		environ = append(environ, name+"="+env[name])
	}
	c, err := loadConfig(serveSettings(), "", environ)
	if err != nil {
		return nil, options{}, err
	}
	o, err := serveOptions(c)
	return c, o, err
}

func TestEnvironmentsThatServe(t *testing.T) {
	for name, row := range map[string]struct {
		env   map[string]string
		check func(o options) bool
	}{
		"the original's, unchanged": {original(), func(o options) bool {
			return o.redis.Addrs[0] == "redis.internal:6379" && o.redis.TLS != nil && o.redis.Password == "canary-redis" &&
				o.fleet.Cluster == "browsers" && o.fleet.TaskDefinition == "arn:aws:ecs:us-east-1:123456789012:task-definition/browser:7" &&
				slices.Equal(o.fleet.Subnets, []string{"subnet-1", "subnet-2"}) && slices.Equal(o.fleet.SecurityGroups, []string{"sg-1"}) &&
				o.fleet.ContainerName == "BrowserContainer" && o.fleet.ContainerPort == 8080 && o.ecsClient.Region == "us-east-1" &&
				o.pool == state.Pool{Min: 2, Max: 100, MaxSessions: 20, WarmSlots: 1} &&
				o.secrets.JWE.ARN == original()["JWE_SECRET_ARN"] && o.secrets.KeysARN == original()["API_KEYS_SECRET_ARN"] &&
				o.dialect == "auto" && !o.exposeTaskARN && o.secrets.ContainerToken == ""
		}},
		"the original's defaults": {with(original(), "PORT", "", "MIN_CONTAINERS", "", "MAX_CONTAINERS", "", "MAX_SESSIONS_PER_CONTAINER", "", "REDIS_TLS_ENABLED", ""),
			func(o options) bool {
				return o.pool == state.Pool{Min: 2, Max: 100, MaxSessions: 20, WarmSlots: 1} && o.redis.TLS == nil
			}},
		"the stack's name of the task definition": {with(original(), "CONTAINER_TASK_DEF", "", "BROWSER_TASK_DEFINITION_ARN", "browser:9"),
			func(o options) bool { return o.fleet.TaskDefinition == "browser:9" }},
		"both names of it": {with(original(), "CONTAINER_TASK_DEF", "browser:8", "BROWSER_TASK_DEFINITION_ARN", "browser:9"),
			func(o options) bool { return o.fleet.TaskDefinition == "browser:8" }},
		"Redis with a port":      {with(least(), "REDIS_ENDPOINT", "redis.internal:6380"), func(o options) bool { return o.redis.Addrs[0] == "redis.internal:6380" }},
		"Redis by IPv6":          {with(least(), "REDIS_ENDPOINT", "fd00::1"), func(o options) bool { return o.redis.Addrs[0] == "[fd00::1]:6379" }},
		"several Redis nodes":    {with(least(), "REDIS_ENDPOINT", "a, b:7"), func(o options) bool { return slices.Equal(o.redis.Addrs, []string{"a:6379", "b:7"}) }},
		"a JWE secret alone":     {with(least(), "JWT_SECRET", "", "JWE_SECRET", `{"JWE_SECRET":"x"}`), func(o options) bool { return o.secrets.JWE.Value == `{"JWE_SECRET":"x"}` }},
		"both kinds of token":    {with(least(), "JWE_SECRET", "canary-0123456789ab", "JWE_SECRET_PREVIOUS", "canary-before-0123"), func(o options) bool { return o.secrets.JWE.Previous == "canary-before-0123" }},
		"a key set beside JWE":   {with(least(), "JWT_SECRET", "", "JWE_SECRET_ARN", "jwe", "JWT_JWKS", "https://issuer.example/keys", "JWT_ALGORITHM", "ES256"), func(o options) bool { return o.secrets.JWKS.Audience == "wallcrawler" }},
		"a key set in a file":    {with(least(), "JWT_SECRET", "", "JWE_SECRET_ARN", "jwe", "JWT_JWKS", "/etc/keys.json", "JWT_ALGORITHM", "EdDSA"), func(o options) bool { return o.secrets.KeySet == "/etc/keys.json" }},
		"the prefix goes before": {with(least(), "PORT", "1", "WALLCRAWLER_PORT", "2", "WALLCRAWLER_MAX_CONTAINERS", "7"), func(o options) bool { return o.pool.Max == 7 }},
		"a shared token":         {with(least(), "CONTAINER_TOKEN", "canary-shared-012345", "CONTAINER_CIDRS", "10.0.0.0/16"), func(o options) bool { return len(o.containerCIDRs) == 1 }},
		"networks alone": {with(least(), "CONTAINER_CIDRS", "10.0.3.4/16, fd00::/8"), func(o options) bool {
			return o.containerCIDRs[0].String() == "10.0.0.0/16" && len(o.containerCIDRs) == 2
		}},
		"a pool of one dialect":   {with(least(), "POOL_PROTOCOL", "v1", "EXPOSE_TASK_ARN", "true"), func(o options) bool { return o.dialect == "v1" && o.exposeTaskARN }},
		"placement and tenancy":   {with(least(), "PLACEMENT", "spread", "TENANCY", "dedicated"), func(o options) bool { return o.pool.Spread && o.pool.Dedicated }},
		"graces":                  {with(least(), "DISCONNECT_GRACE", "3s", "LOST_GRACE", "1m"), func(o options) bool { return o.disconnectGrace == 3*time.Second && o.lostGrace == time.Minute }},
		"an address for replicas": {with(least(), "REPLICA_ADDR", "10.0.0.1:8080"), func(o options) bool { return o.replicaAddr == "10.0.0.1:8080" }},
		"AWS's endpoint for all": {with(least(), "AWS_ENDPOINT_URL", "http://127.0.0.1:1"), func(o options) bool {
			return o.secrets.Manager.Endpoint == "http://127.0.0.1:1" && o.ecsClient.Endpoint == "http://127.0.0.1:1"
		}},
		"secrets elsewhere": {with(least(), "AWS_ENDPOINT_URL", "http://127.0.0.1:1", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:2"),
			func(o options) bool { return o.secrets.Manager.Endpoint == "http://127.0.0.1:2" }},
	} {
		_, o, err := readEnv(row.env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !row.check(o) {
			t.Errorf("%s: not as it should be", name)
		}
	}
}

func TestEnvironmentsThatAreRefused(t *testing.T) {
	for _, row := range []struct {
		name string
		env  map[string]string
		want string // the whole error
	}{
		{"no Redis", with(least(), "REDIS_ENDPOINT", ""), "REDIS_ENDPOINT is not set: host or host:port of Redis, comma list of sentinels or cluster nodes"},
		{"no address", with(least(), "REGISTER_URL", ""),
			"REGISTER_URL is not set, and there is no task metadata endpoint to tell this task's address: where containers register"},
		{"no secret", with(least(), "JWT_SECRET", ""), "none of JWT_SECRET, JWT_SECRET_ARN, JWE_SECRET, JWE_SECRET_ARN is set: session tokens are made of it"},
		{"no keys", with(least(), "API_KEYS", ""), "neither API_KEYS nor API_KEYS_SECRET_ARN is set: nobody could create sessions"},
		{"a secret twice", with(least(), "JWT_SECRET_ARN", "arn"), "JWT_SECRET and JWT_SECRET_ARN are both set: give one"},
		{"the JWE secret twice", with(original(), "JWE_SECRET", "canary-0123456789ab"), "JWE_SECRET and JWE_SECRET_ARN are both set: give one"},
		{"a short secret", with(least(), "JWT_SECRET", "canary"), "JWT_SECRET has 6 bytes: use at least 16 random ones"},
		{"a short secret before", with(least(), "JWT_SECRET_PREVIOUS", "canary"), "JWT_SECRET_PREVIOUS has 6 bytes: use at least 16 random ones"},
		{"a secret before none", with(original(), "JWE_SECRET_PREVIOUS", "canary-0123456789ab"),
			"JWE_SECRET_PREVIOUS is set without JWE_SECRET: Secrets Manager keeps previous versions itself"},
		{"two signed kinds", with(least(), "JWE_SECRET_ARN", "arn", "JWT_JWKS", "/keys", "JWT_ALGORITHM", "ES256"),
			"JWT_JWKS and JWT_SECRET (or JWT_SECRET_ARN) are both set: signed tokens are of one kind"},
		{"a key set alone", with(least(), "JWT_SECRET", "", "JWT_JWKS", "/keys", "JWT_ALGORITHM", "ES256"),
			"JWT_JWKS only checks the tokens of somebody else: set JWE_SECRET or JWE_SECRET_ARN too, of which our own are made"},
		{"an algorithm that is not offered", with(original(), "JWT_JWKS", "/keys", "JWT_ALGORITHM", "HS256"),
			`JWT_ALGORITHM is "HS256": with JWT_JWKS it must be one of ES256, RS256, EdDSA`},
		{"an issuer without keys", with(least(), "JWT_ISSUER", "x"), "JWT_ALGORITHM and JWT_ISSUER are for JWT_JWKS, which is not set"},
		{"keys in the clear", with(original(), "JWT_JWKS", "http://issuer.example/keys", "JWT_ALGORITHM", "ES256"),
			"JWT_JWKS: a key set's URL must be https://host/path, or http:// on this machine, without user and password"},
		{"a shared token anywhere", with(least(), "CONTAINER_TOKEN", "canary-shared-012345"),
			"CONTAINER_TOKEN is set without CONTAINER_CIDRS: the token does not tell where its containers may be"},
		{"a short shared token", with(least(), "CONTAINER_TOKEN", "canary", "CONTAINER_CIDRS", "10.0.0.0/8"),
			"CONTAINER_TOKEN: the shared token of containers has 6 bytes: use at least 16 random ones"},
		{"a network that is none", with(least(), "CONTAINER_CIDRS", "10.0.0.1"), `CONTAINER_CIDRS: "10.0.0.1" is no network: use 10.0.0.0/16 and the like`},
		{"a key twice", with(least(), "API_KEYS", "a:canary-key,b:canary-key"), "API_KEYS: API key 2 is given twice: a key stands for one user"},
		{"a dialect", with(least(), "POOL_PROTOCOL", "v3"), `POOL_PROTOCOL is "v3": use auto, v1 or v2`},
		{"a placement", with(least(), "PLACEMENT", "random"), `PLACEMENT is "random": use packed or spread`},
		{"an address for replicas", with(least(), "REPLICA_ADDR", "10.0.0.1"), `REPLICA_ADDR is "10.0.0.1": it must be host:port`},
		{"one port for two", with(least(), "REGISTER_PORT", "8080"), "REGISTER_PORT is 8080, which is another port of this service: give it one of its own"},
		{"a number", with(least(), "MIN_CONTAINERS", "two"), `MIN_CONTAINERS is "two": it must be a whole number (from $MIN_CONTAINERS)`},
		{"a truth", with(least(), "EXPOSE_TASK_ARN", "perhaps"), `EXPOSE_TASK_ARN is "perhaps": it must be true or false (from $EXPOSE_TASK_ARN)`},
		{"a time", with(least(), "LOST_GRACE", "120"), `LOST_GRACE is "120": it must be a time with its unit, such as 90s or 2m (from $LOST_GRACE)`},
		{"min above max", with(least(), "MIN_CONTAINERS", "5", "MAX_CONTAINERS", "4"),
			"MIN_CONTAINERS is 5 and MAX_CONTAINERS 4: they must be at least 0 and 1, and the maximum not below the minimum"},
		{"a misspelt name", with(least(), "WALLCRAWLER_MAX_CONTAINER", "5"), "unknown variable WALLCRAWLER_MAX_CONTAINER: see wallcrawler config"},
		{"everything at once", map[string]string{"JWT_SECRET": "canary", "TENANCY": "x"}, strings.Join([]string{
			"REDIS_ENDPOINT is not set: host or host:port of Redis, comma list of sentinels or cluster nodes",
			"ECS_CLUSTER_NAME is not set: cluster that runs the containers",
			"CONTAINER_TASK_DEF is not set: task definition of a container",
			"REGISTER_URL is not set, and there is no task metadata endpoint to tell this task's address: where containers register",
			`TENANCY is "x": use shared or dedicated`,
			"JWT_SECRET has 6 bytes: use at least 16 random ones",
			"neither API_KEYS nor API_KEYS_SECRET_ARN is set: nobody could create sessions",
		}, "\n")},
	} {
		_, _, err := readEnv(row.env)
		if err == nil || err.Error() != row.want {
			t.Errorf("%s: got %v\nwant %s", row.name, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error quotes a secret: %v", row.name, err)
		}
	}
}

func TestConfigSaysWhereValuesCameFrom(t *testing.T) {
	c, _, err := readEnv(with(original(), "CONTAINER_TASK_DEF", "", "BROWSER_TASK_DEFINITION_ARN", "browser:9", "WALLCRAWLER_MAX_CONTAINERS", "9",
		"CONTAINER_TOKEN", "canary-shared-012345", "CONTAINER_CIDRS", "10.0.0.0/8"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][2]string{}
	for _, s := range c.show() {
		got[s.Env] = [2]string{s.Value, s.Source}
		if strings.Contains(s.Value, "canary") {
			t.Errorf("%s shows a secret", s.Env)
		}
		if s.Help == "" {
			t.Errorf("%s is not explained", s.Env)
		}
	}
	for name, want := range map[string][2]string{
		"CONTAINER_TASK_DEF": {"browser:9", "$BROWSER_TASK_DEFINITION_ARN"}, "MAX_CONTAINERS": {"9", "$WALLCRAWLER_MAX_CONTAINERS"},
		"MIN_CONTAINERS": {"2", "$MIN_CONTAINERS"}, "WARM_SLOTS": {"1", "default"}, "CONTAINER_TOKEN": {"[hidden]", "$CONTAINER_TOKEN"},
		"REDIS_PASSWORD": {"[hidden]", "$REDIS_PASSWORD"}, "JWE_SECRET": {"", "default"}, "API_KEYS_ARN": {"/wallcrawler/api-keys", "$API_KEYS_ARN"},
		"POOL_PROTOCOL": {"auto", "default"},
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}

// TestSettingsHaveNamesOfTheirOwn guards against two settings that read one variable.
func TestSettingsHaveNamesOfTheirOwn(t *testing.T) {
	for _, settings := range [][]setting{serveSettings(), agentSettings()} {
		seen := map[string]string{}
		for _, s := range settings {
			for _, name := range append([]string{s.key}, s.env...) {
				if other, taken := seen[name]; taken {
					t.Errorf("%s and %s share %s", s.key, other, name)
				}
				seen[name] = s.key
			}
			if strings.HasSuffix(s.env[0], "_SECRET") && !s.secret {
				t.Errorf("%s would be shown", s.env[0])
			}
		}
	}
	if auth.MinSecret != 16 {
		t.Error("the help of the secrets speaks of 16 bytes")
	}
}
