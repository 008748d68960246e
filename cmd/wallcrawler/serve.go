package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wallcrawler/wallcrawler/api/traces"
	"github.com/wallcrawler/wallcrawler/controller/ecs"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

// serveName is the command's.
const serveName = "serve"

func newServe() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   serveName,
		Short: "Run one replica of the service against Redis and ECS",
		Long: `Run one replica of the service: the API, the proxy and the controller. It is configured by
the environment or a file; "wallcrawler config" lists every setting and where its value came from.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(serveSettings(), configFile(file), os.Environ())
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML, TOML or JSON; default $WALLCRAWLER_CONFIG)")
	return cmd
}

func serve(ctx context.Context, c *config) error {
	memory := limitMemory() // before anything depends on it
	o, err := serveOptions(c)
	if err != nil {
		return err
	}
	o.memory = memory
	if o.log, err = newLogger(os.Stderr, c.GetString("log_level"), false); err != nil {
		return err
	}
	if err := o.listen(ctx, c); err != nil {
		return err
	}
	defer o.closeListeners() // once more, if it came to serving
	if c.GetBool("emf") {
		o.emfOut = os.Stdout
	}
	o.log.Info("starting", "version", o.version, "replica", o.replica, "deployment", o.redis.Deployment, "listen", o.listener.Addr().String())
	memory.tell(o.log)
	o.tellWeakness(c, o.log)
	registerPort := c.GetString("port")
	if o.registerOn != nil {
		registerPort = c.GetString("register_port")
	}
	if err := o.findSelf(ctx, c.GetString("metadata"), c.GetString("port"), registerPort); err != nil {
		return err
	}
	s, err := newService(ctx, o)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// listen opens the ports that the configuration names.
func (o *options) listen(ctx context.Context, c *config) (err error) {
	defer func() {
		if err != nil {
			o.closeListeners()
		}
	}()
	open := func(port string) (net.Listener, error) {
		return listen(ctx, net.JoinHostPort(c.GetString("listen_host"), c.GetString(port)), o.keep)
	}
	if o.listener, err = open("port"); err != nil {
		return err
	}
	if c.GetInt("register_port") != 0 {
		if o.registerOn, err = open("register_port"); err != nil {
			return err
		}
	}
	if o.certificate != nil {
		l, err := open("tls_port")
		if err != nil {
			return err
		}
		o.secureListener = tls.NewListener(l, o.certificate.config(o.log))
	}
	return nil
}

func (o *options) closeListeners() {
	for _, l := range []net.Listener{o.listener, o.registerOn, o.secureListener} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// serveOptions checks a configuration and makes options of it. Everything that is wrong is
// told at once.
func serveOptions(c *config) (options, error) {
	var errs []error
	var err error
	need := func(key string) string {
		v := c.GetString(key)
		if v == "" {
			for _, s := range c.settings {
				if s.key == key {
					errs = append(errs, fmt.Errorf("%s is not set: %s", s.env[0], s.help))
				}
			}
		}
		return v
	}
	o := options{replica: c.GetString("replica"), version: versionText()}
	if o.replica == "" {
		o.replica = replicaName()
	}
	if text := c.GetString("public_url"); text != "" {
		u, parseErr := url.Parse(text)
		if parseErr != nil {
			errs = append(errs, errors.New("PUBLIC_URL is not a URL: it must be http(s)://host[:port][/path]"))
		}
		o.publicURL = u
	}

	o.redis = redisstore.Options{
		Addrs: redisAddrs(need("redis_endpoint")), MasterName: c.GetString("redis_master"), IsClusterMode: c.GetBool("redis_cluster"),
		Username: c.GetString("redis_username"), Password: c.GetString("redis_password"), TLS: tlsConfig(c.GetBool("redis_tls")),
		Deployment: c.GetString("deployment"), EnableKeyspaceEvents: c.GetBool("redis_keyspace_events"),
	}
	o.ecsClient = ecs.ClientOptions{Region: c.GetString("aws_region"), Endpoint: c.GetString("aws_endpoint")}
	o.fleet = ecs.Config{
		Cluster: need("ecs_cluster"), Deployment: c.GetString("deployment"), TaskDefinition: need("task_definition"),
		Subnets: c.list("subnets"), SecurityGroups: c.list("security_groups"), AssignPublicIP: c.GetBool("assign_public_ip"),
		ContainerName: c.GetString("container_name"), ContainerPort: c.GetInt("container_port"), RegisterURL: c.GetString("register_url"),
		LaunchType: "FARGATE",
	}
	if o.fleet.RegisterURL == "" && c.GetString("metadata") == "" {
		errs = append(errs, errors.New("REGISTER_URL is not set, and there is no task metadata endpoint to tell this task's address: where containers register"))
	}
	if o.replicaAddr = c.GetString("replica_addr"); o.replicaAddr != "" {
		if host, port, err := net.SplitHostPort(o.replicaAddr); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("REPLICA_ADDR is %q: it must be host:port", o.replicaAddr))
		}
	}
	if providers := c.list("capacity_providers"); len(providers) > 0 {
		o.fleet.LaunchType = ""
		for _, name := range providers {
			o.fleet.CapacityProviders = append(o.fleet.CapacityProviders, ecs.CapacityProvider{Name: name, Weight: 1})
		}
	}
	if o.containerCIDRs, err = containerCIDRs(c.list("container_cidrs"), o.ecsClient.Endpoint); err != nil {
		errs = append(errs, err)
	}
	o.pool = state.Pool{Min: c.GetInt("min_containers"), Max: c.GetInt("max_containers"), WarmSlots: c.GetInt("warm_slots"), MaxSessions: c.GetInt("max_sessions")}
	choose := func(key string, words [2]string) bool {
		v := c.GetString(key)
		if v != words[0] && v != words[1] {
			errs = append(errs, fmt.Errorf("%s is %q: use %s or %s", strings.ToUpper(key), v, words[0], words[1]))
		}
		return v == words[1]
	}
	o.pool.Spread = choose("placement", [2]string{"packed", "spread"})
	o.pool.Dedicated = choose("tenancy", [2]string{"shared", "dedicated"})
	if o.pool.Min < 0 || o.pool.Max < max(1, o.pool.Min) {
		errs = append(errs, fmt.Errorf("MIN_CONTAINERS is %d and MAX_CONTAINERS %d: they must be at least 0 and 1, and the maximum not below the minimum", o.pool.Min, o.pool.Max))
	}
	if o.pool.MaxSessions < 1 || o.pool.MaxSessions > 1000 {
		errs = append(errs, fmt.Errorf("MAX_SESSIONS_PER_CONTAINER is %d: it must be 1 to 1000", o.pool.MaxSessions))
	}
	o.policy = plan.Policy{StartDeadline: c.GetDuration("start_deadline"), ScaleDownHold: c.GetDuration("scale_down_hold"), MaxLoad: float64(c.GetInt("max_load")) / 100}
	if o.policy.MaxLoad <= 0 {
		errs = append(errs, fmt.Errorf("MAX_CONTAINER_LOAD is %d: it must be above 0, in percent", c.GetInt("max_load")))
	}
	if o.policy.HungAfter = c.GetDuration("hung_after"); o.policy.HungAfter == 0 {
		o.policy.HungAfter = -1
	} else if o.policy.HungAfter < 30*time.Second {
		errs = append(errs, fmt.Errorf("HUNG_AFTER is %v: it must be 30 s or more, or 0", o.policy.HungAfter))
	}
	o.firstConnect, o.disconnectGrace, o.lostGrace = c.GetDuration("first_connect"), c.GetDuration("disconnect_grace"), c.GetDuration("lost_grace")
	o.idle, o.hold = c.GetDuration("idle_timeout"), c.GetDuration("connect_hold")
	o.unreadyFor, o.drainTimeout = c.GetDuration("unready_for"), c.GetDuration("drain_timeout")
	o.traces = traces.Config{Endpoint: c.GetString("otlp_endpoint"), Ratio: float64(c.GetInt("traces_percent")) / 100}
	if o.traces.Ratio < 0 || o.traces.Ratio > 1 {
		errs = append(errs, fmt.Errorf("TRACES_PERCENT is %d: it must be 0 to 100", c.GetInt("traces_percent")))
	}
	if o.emfEvery = c.GetDuration("emf_interval"); o.emfEvery < time.Second {
		errs = append(errs, fmt.Errorf("EMF_INTERVAL is %v: it must be 1 s or more", o.emfEvery))
	}
	if err := o.relayLimits(c); err != nil {
		errs = append(errs, err)
	}
	if o.certificate, err = readCertificate(c.GetString("tls_cert"), c.GetString("tls_key")); err != nil {
		errs = append(errs, err)
	}
	if port := c.GetInt("register_port"); port != 0 && (port == c.GetInt("port") || o.certificate != nil && port == c.GetInt("tls_port")) {
		errs = append(errs, fmt.Errorf("REGISTER_PORT is %d, which is another port of this service: give it one of its own", port))
	}
	if o.containerTLS, err = containerTLS(c.GetString("container_tls_name"), c.GetString("container_tls_ca")); err != nil {
		errs = append(errs, err)
	}

	o.operators = c.list("operators")
	o.dialect = c.GetString("pool_protocol")
	if !slices.Contains([]string{"auto", "v1", "v2"}, o.dialect) {
		errs = append(errs, fmt.Errorf("POOL_PROTOCOL is %q: use auto, v1 or v2", o.dialect))
	}
	o.exposeTaskARN = c.GetBool("expose_task_arn")
	if o.secrets, err = readSecrets(c); err != nil {
		errs = append(errs, err)
	}
	return o, errors.Join(errs...)
}

// containerCIDRs are the networks that containers may be dialled in. The tasks of an ECS
// endpoint on loopback live on loopback, which is never dialled otherwise.
func containerCIDRs(texts []string, endpoint string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("CONTAINER_CIDRS: %q is no network: use 10.0.0.0/16 and the like", text)
		}
		prefixes = append(prefixes, p.Masked())
	}
	if u, err := url.Parse(endpoint); err == nil && endpoint != "" && len(prefixes) == 0 {
		if addr, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && addr.IsLoopback() {
			prefixes = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
	}
	return prefixes, nil
}

// redisAddrs splits a comma list and gives those without a port Redis's.
func redisAddrs(endpoint string) []string {
	var addrs []string
	for a := range strings.SplitSeq(endpoint, ",") {
		a = strings.TrimSpace(a)
		if a == "" {
			continue
		}
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			a = net.JoinHostPort(strings.Trim(a, "[]"), strconv.Itoa(6379))
		}
		addrs = append(addrs, a)
	}
	return addrs
}
