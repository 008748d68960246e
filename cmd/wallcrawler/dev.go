package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wallcrawler/wallcrawler/agent"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/controller/ecs"
	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

// devFlags are fixed: other programs start dev with them.
type devFlags struct {
	listen, redis, apiKey, browser, logLevel, ecsFaults string
	containers, perContainer, warm                      int
}

const (
	devCluster    = "wallcrawler-dev"
	devDefinition = "browser"
	// devRelist is short because an in-process Redis notifies of no foreign writes.
	devRelist = 250 * time.Millisecond
	// devStopTimeout is what a task gets from SIGTERM to SIGKILL: its sessions end at once.
	devStopTimeout = 5 * time.Second
	// devSession is how long the printed session lasts.
	devSession = 6 * time.Hour
)

func newDev() *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole system on this machine, with a browser to connect to",
		Long: `Run the whole system on this machine: Redis in this process (or --redis), an ECS endpoint on
loopback whose tasks are child processes, and in them real agents with real Chromium. It prints
a connect URL as soon as the first browser is warm. Ctrl-C ends everything.

The other commands (session, container, task, plan) find a running dev by themselves.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return dev(cmd.Context(), f, cmd.OutOrStdout()) },
	}
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8080", "address of the API and the proxy")
	cmd.Flags().StringVar(&f.redis, "redis", "", "a Redis to use instead of the one in this process")
	cmd.Flags().StringVar(&f.apiKey, "api-key", "", "API key (default: drawn and printed)")
	cmd.Flags().StringVar(&f.browser, "browser", "", "Chromium's executable (default: the first that is found)")
	cmd.Flags().IntVar(&f.containers, "containers", 3, "containers at most")
	cmd.Flags().IntVar(&f.perContainer, "sessions-per-container", 4, "sessions of each container")
	cmd.Flags().IntVar(&f.warm, "warm", 1, "browsers that each container keeps ready")
	cmd.Flags().StringVar(&f.ecsFaults, "ecs-faults", "", "file of ECS's bad days: a JSON array of {at, conditions, calls} (see docs/reliability.md)")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "warn", "debug, info, warn or error")
	return cmd
}

// check says what is wrong with the flags.
func (f *devFlags) check() error {
	var errs []error
	if f.containers < 1 || f.containers > 100 {
		errs = append(errs, fmt.Errorf("--containers is %d: use 1 to 100", f.containers))
	}
	if f.perContainer < 1 || f.perContainer > 100 {
		errs = append(errs, fmt.Errorf("--sessions-per-container is %d: use 1 to 100", f.perContainer))
	}
	if f.warm < 0 || f.warm > 100 {
		errs = append(errs, fmt.Errorf("--warm is %d: use 0 to 100", f.warm))
	}
	return errors.Join(errs...)
}

// dev runs everything until ctx ends.
func dev(ctx context.Context, f devFlags, out io.Writer) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	browser, err := agent.FindBrowser(f.browser)
	if err != nil {
		return err
	}
	log, err := newLogger(os.Stderr, f.logLevel, true)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program's own file, to start agents from it: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listening: %w: is another dev running? Choose another address with --listen", err)
	}
	server := "http://" + reachable(listener.Addr())

	redis := redisstore.Options{Addrs: redisAddrs(f.redis), Deployment: "dev", EnableKeyspaceEvents: f.redis != ""}
	if f.redis == "" {
		local, err := startRedis()
		if err != nil {
			_ = listener.Close()
			return err
		}
		defer local.close()
		redis.Addrs = []string{local.addr()}
	}
	port, err := freePort()
	if err != nil {
		_ = listener.Close()
		return err
	}
	cloud, err := startCloud(f, port, self, browser, log)
	if err != nil {
		_ = listener.Close()
		return err
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*devStopTimeout)
		defer cancel()
		err = errors.Join(err, cloud.Close(bounded))
	}()

	key := f.apiKey
	if key == "" {
		key = "wc_" + rand.Text()
	}
	o, err := devOptions(f, cloud.URL(), server, key)
	if err != nil {
		_ = listener.Close()
		return err
	}
	o.redis, o.listener, o.log, o.fleet.ContainerPort = redis, listener, log, port

	fmt.Fprintf(out, "wallcrawler dev %s\n  API        %s   (dashboard: the same address in a browser)\n  API key    %s\n  Redis      %s\n  ECS        %s\n  browser    %s\n\nwaiting for the first browser…\n",
		versionText(), server, key, redis.Addrs[0], cloud.URL(), browser)

	s, err := newService(ctx, o)
	if err != nil {
		_ = listener.Close()
		return err
	}
	forget, err := rememberServer(server, key)
	if err != nil {
		log.Warn("other commands will not find this dev by themselves: give them --server and --key", "error", err)
	}
	defer forget()

	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		if err := s.greet(ctx, out, apiClient{server: server, key: key}); err != nil && ctx.Err() == nil {
			fmt.Fprintln(out, "no browser yet:", err)
		}
	}()
	err = s.run(ctx)
	<-greeted
	if ctx.Err() != nil {
		fmt.Fprintln(out, "stopping: browsers, tasks and files of this dev are being removed")
	}
	return err
}

// reachable is how this machine's programs reach a listener.
func reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	if t.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.Port))
	}
	return t.String()
}

// startCloud starts the ECS endpoint whose tasks are agents.
func startCloud(f devFlags, port int, self, browser string, log *slog.Logger) (*ecslocal.Server, error) {
	var script []ecslocal.Step
	if f.ecsFaults != "" {
		text, err := os.ReadFile(f.ecsFaults)
		if err != nil {
			return nil, fmt.Errorf("--ecs-faults: %w", err)
		}
		if script, err = ecslocal.ParseScript(text); err != nil {
			return nil, fmt.Errorf("--ecs-faults: %s: %w", f.ecsFaults, err)
		}
	}
	return ecslocal.Start(ecslocal.Config{
		Cluster: devCluster, Script: script,
		Network: netip.MustParsePrefix("127.0.0.0/24"),
		Definitions: map[string]ecslocal.Definition{devDefinition: {
			Command: []string{self, "agent"},
			Env: []string{
				"PORT=" + strconv.Itoa(port), "WARM_BROWSERS=" + strconv.Itoa(f.warm), "BROWSER_PATH=" + browser,
				"AGENT_DRAIN_TIMEOUT=1ms", "EXIT_ON_STDIN_EOF=true", "LOG_LEVEL=" + f.logLevel,
			},
			Port: port, StopTimeout: devStopTimeout, Stdout: os.Stderr, Stderr: os.Stderr,
		}},
		InheritEnv: []string{"LANG", "LD_LIBRARY_PATH", "FONTCONFIG_PATH"},
		Log:        log,
	})
}

// freePort finds a port for the agents, which all listen on the same one at addresses of
// their own.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// devOptions are the service's options on one machine: only the endpoints differ from
// production.
func devOptions(f devFlags, ecsURL, server, key string) (options, error) {
	o := options{
		replica: replicaName(), version: versionText(),
		ecsClient: ecs.ClientOptions{Endpoint: ecsURL},
		fleet: ecs.Config{
			Cluster: devCluster, Deployment: "dev", TaskDefinition: devDefinition, LaunchType: "FARGATE",
			Subnets: []string{"subnet-local"}, RegisterURL: server,
		},
		pool: state.Pool{Min: 1, Max: f.containers, MaxSessions: f.perContainer, WarmSlots: 1},
		// These containers share one machine: when it is busy, none of them is a better place.
		policy:     plan.Policy{StartDeadline: 30 * time.Second, ScaleDownHold: 30 * time.Second, MaxLoad: 2},
		relist:     devRelist,
		tasksEvery: 5 * time.Second,
		hold:       25 * time.Second,

		containerCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		operators:      []string{"dev"},
	}
	o.secrets = &secretSpecs{
		JWT:       secretSpec{Name: "jwt", Value: auth.Secret(rand.Text())},
		Container: secretSpec{Name: "container", Value: auth.Secret(rand.Text())},
		Keys:      []auth.Key{{Name: "dev", Key: auth.Secret(key)}},
	}
	if _, err := auth.NewKeys(o.secrets.Keys...); err != nil {
		return o, fmt.Errorf("--api-key: %w", err)
	}
	return o, nil
}

// greet waits for the first warm browser, creates a session and prints how to drive it.
func (s *service) greet(ctx context.Context, out io.Writer, c apiClient) error {
	begin := time.Now()
	for !s.anyWarm() {
		wait(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	created, err := c.create(ctx, sessionRequest{Timeout: int(devSession.Seconds()), KeepAlive: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ready after %s: a browser of yours, for %s\n\n  %s\n\n%s", time.Since(begin).Round(10*time.Millisecond), devSession, created.ConnectURL, snippets(c, created.ConnectURL))
	return nil
}

func (s *service) anyWarm() bool {
	for _, c := range s.mirror.Containers() {
		if c.Phase == state.ContainerReady && (c.Health.Warm > 0 || c.Free() > 0 && s.o.replica == c.Owner && c.Health.Sessions == 0) {
			return true
		}
	}
	return false
}

// snippets are ready to paste.
func snippets(c apiClient, connectURL string) string {
	return strings.NewReplacer("{URL}", connectURL, "{SERVER}", c.server, "{KEY}", c.key).Replace(`Playwright (npm install playwright-core):
  node -e "require('playwright-core').chromium.connectOverCDP('{URL}').then(async b => { const p = await b.contexts()[0].newPage(); await p.goto('data:text/html,<title>hello</title>'); console.log(await p.title()); await b.close() })"

Puppeteer (npm install puppeteer-core):
  node -e "require('puppeteer-core').connect({browserWSEndpoint: '{URL}'}).then(async b => { const p = await b.newPage(); await p.goto('data:text/html,<title>hello</title>'); console.log(await p.title()); await p.close(); b.disconnect() })"

another session:
  curl -s -X POST {SERVER}/v1/sessions -H 'X-BB-API-Key: {KEY}' -H 'Content-Type: application/json' -d '{}'

Ctrl-C ends everything.
`)
}
