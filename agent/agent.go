// Package agent is the container side of WallCrawler: it registers its container, serves the
// link to the service, and runs one browser per session, reachable by the service alone.
//
// It decides nothing about sessions beyond the limits that it was told, keeps nothing beyond
// its own life, and leaves no process and no file behind. docs/container-protocol.md tells
// what it speaks.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// Reasons for the end of a session that this side gives by itself: state.Reason's words.
const (
	reasonReleased     = "released"
	reasonDeadline     = "deadline"
	reasonIdle         = "idle"
	reasonNotConnected = "not_connected"
	reasonDisconnected = "disconnected"
	reasonCrashed      = "browser_crashed"
	reasonShutdown     = "shutdown"
)

// WebSocket close codes that clients are told.
const (
	closeNormal   = 1000
	closeAway     = 1001
	closePolicy   = 1008
	closeFailed   = 1011
	closeRestart  = 1012
	closeTryLater = 1013
)

// Secret is a text that never prints.
type Secret string

const hidden = "[hidden]"

// String implements fmt.Stringer.
func (Secret) String() string { return hidden }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return hidden }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Viewport is the size of a browser's window in CSS pixels.
type Viewport struct{ Width, Height int }

// Config is what an agent is told. Zero values mean the default where one is named.
type Config struct {
	ContainerID string
	RegisterURL string // the service's origin
	Token       Secret // the container's, sent with registrations only
	MaxSessions int
	Version     string

	// Host is where to listen: by default the task's own address if MetadataURL tells one,
	// else every address. Port 0 is any free one.
	Host        string
	Port        int
	MetadataURL string // the ECS task metadata endpoint, version 4; may be empty

	Browser         string   // the executable; empty: the first that is found
	BrowserArgs     []string // added to every browser's
	NoSandbox       bool     // also if not root; root always goes without
	DefaultViewport Viewport // 1288x711
	Warm            int      // browsers kept ready while slots are free
	WarmDelay       time.Duration

	// WorkDir holds a directory of this agent's own, removed at its end, and perhaps those of
	// agents that died, removed at its start. Default: wallcrawler-agent in the system's
	// directory for temporary files.
	WorkDir string

	StartTimeout time.Duration // 20 s: for one browser
	TLS          *tls.Config   `json:"-"` // nil: in the clear

	DrainTimeout time.Duration // 110 s: for sessions to end by themselves when told to stop
	// ExitOnStdinEOF stops the agent at once, sessions and all, when its standard input ends.
	// A runner that holds the other end thus leaves nothing behind, however it dies.
	ExitOnStdinEOF bool

	Log *slog.Logger // nil: silent
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !validID(c.ContainerID) {
		bad("the container id %q is not 1 to 128 letters, digits, - or _: set CONTAINER_ID", c.ContainerID)
	}
	if c.RegisterURL == "" {
		bad("nowhere to register: set PROXY_ENDPOINT to the service's origin, e.g. http://10.0.0.5:8080")
	} else if _, err := registerURL(c.RegisterURL); err != nil {
		errs = append(errs, err)
	}
	if c.MaxSessions < 1 {
		bad("maximum of sessions is %d: set MAX_SESSIONS to 1 or more", c.MaxSessions)
	}
	if c.Port < 0 || c.Port > 65535 {
		bad("port %d is not between 0 and 65535", c.Port)
	}
	if c.Warm < 0 {
		bad("number of warm browsers is %d: use 0 or more", c.Warm)
	}
	if v := c.DefaultViewport; v != (Viewport{}) && !v.valid() {
		bad("default viewport %dx%d: both sides must be 1 to %d", v.Width, v.Height, maxSide)
	}
	if c.StartTimeout < 0 || c.DrainTimeout < 0 || c.WarmDelay < 0 {
		bad("timeouts and delays must not be negative")
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.DefaultViewport == (Viewport{}) {
		c.DefaultViewport = Viewport{Width: 1288, Height: 711}
	}
	if c.WorkDir == "" {
		c.WorkDir = defaultWorkDir()
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 20 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 110 * time.Second // ECS grants 120 s at most
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// agent is one life of a container.
type agent struct {
	// set once in newAgent
	cfg    Config
	log    *slog.Logger
	bootID string
	start  *starter
	pool   *pool
	health *health
	reg    *registrar
	server *http.Server
	// browsers asks Chromium's plain HTTP endpoints.
	browsers *http.Transport
	owned    sync.WaitGroup // every goroutine of the agent, requests' included

	mu       sync.Mutex // guards the following
	sessions map[string]*session
	ended    map[string]tombstone
	link     *link
	ownerSeq int64  // of the highest link seen
	ack      uint64 // the last order of link obeyed
	ordered  bool   // draining, by order
	stopping bool   // told to stop: admission is closed for good
	drainSeq int64
	drainAck int64
	empty    chan struct{} // closed when the last session is gone while stopping
	over     bool          // no request is served any more
}

// Run serves as the container that cfg describes until ctx ends, and then until its sessions
// have ended, at most cfg.DrainTimeout. It returns nil if it stopped because it was told to,
// and an error if it cannot start or the service refuses it. Nothing that it started remains.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("checking the agent's configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	exe, err := findBrowser(cfg.Browser)
	if err != nil {
		return err
	}
	task := readTask(ctx, cfg.MetadataURL, cfg.Log)
	host := cfg.Host
	if host == "" {
		host = task.ip
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(cfg.Port)))
	if err != nil {
		return fmt.Errorf("listening for the service: %w", err)
	}
	if cfg.TLS != nil {
		ln = tls.NewListener(ln, cfg.TLS)
	}
	work, err := openWork(cfg.WorkDir)
	if err != nil {
		_ = ln.Close()
		return err
	}
	threads := newLauncher()
	a := newAgent(cfg, &starter{cfg: cfg, exe: exe, work: work, launcher: threads}, task, ln)
	err = a.run(ctx, ln)
	threads.close()
	return errors.Join(err, work.close())
}

func newAgent(cfg Config, start *starter, task taskInfo, ln net.Listener) *agent {
	a := &agent{
		cfg:      cfg,
		log:      cfg.Log.With("container", cfg.ContainerID),
		bootID:   randomID(),
		start:    start,
		health:   &health{},
		browsers: &http.Transport{DialContext: dialLoopback, DisableKeepAlives: true, DisableCompression: true},
		sessions: map[string]*session{},
		ended:    map[string]tombstone{},
		empty:    make(chan struct{}),
	}
	a.pool = newPool(start.start, cfg, a.held, a.reportSoon, a.log)
	a.reg = newRegistrar(cfg, a.registration(task, ln), a.log)
	a.server = &http.Server{
		Handler:           a.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	return a
}

// registration is what the agent says of itself. The service only compares the address.
func (a *agent) registration(task taskInfo, ln net.Listener) wire.Registration {
	ip, port, _ := net.SplitHostPort(ln.Addr().String())
	if task.ip != "" {
		ip = task.ip
	} else if parsed := net.ParseIP(ip); parsed == nil || parsed.IsUnspecified() {
		ip = outboundIP(a.cfg.RegisterURL)
	}
	n, _ := strconv.Atoi(port)
	return wire.Registration{
		ContainerID: a.cfg.ContainerID, IP: ip, Port: n, TaskARN: task.arn,
		Protocol: wire.Protocol, BootID: a.bootID, MaxSessions: a.cfg.MaxSessions, Version: a.cfg.Version,
	}
}

// run serves until ctx ends or something makes it pointless. Whatever it starts has ended
// when it returns.
func (a *agent) run(ctx context.Context, ln net.Listener) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	fatal := make(chan error, 2)

	a.owned.Go(func() { a.pool.run(life) })
	a.owned.Go(func() {
		if err := a.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			fatal <- fmt.Errorf("serving the container's listener: %w", err)
		}
	})
	a.owned.Go(func() {
		if err := a.reg.run(life); err != nil {
			fatal <- err
		}
	})
	a.log.Info("agent started", "listen", ln.Addr().String(), "browser", a.start.exe,
		"maxSessions", a.cfg.MaxSessions, "version", a.cfg.Version, "go", runtime.Version())

	var orphaned <-chan struct{}
	if a.cfg.ExitOnStdinEOF {
		orphaned = stdinEnd()
	}
	var err error
	select {
	case err = <-fatal:
	case <-orphaned:
	case <-ctx.Done():
		a.closeAdmission()
		a.log.Info("agent draining", "sessions", a.held(), "timeout", a.cfg.DrainTimeout)
		timer := time.NewTimer(a.cfg.DrainTimeout)
		defer timer.Stop()
		select {
		case <-a.empty:
		case <-timer.C:
		case <-orphaned:
		case err = <-fatal:
		}
	}
	a.closeAdmission()
	a.endAll()
	a.closeLink()
	_ = a.server.Close()
	stop()
	a.owned.Wait()
	a.log.Info("agent stopped")
	return err
}

// closeAdmission refuses sessions from now on, and tells the service so.
func (a *agent) closeAdmission() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return
	}
	a.stopping = true
	if len(a.sessions) == 0 {
		close(a.empty)
	}
	a.pool.stop()
	a.reportSoonLocked()
}

// endAll ends every session for the agent's own end, and waits until all are gone.
func (a *agent) endAll() {
	a.mu.Lock()
	left := make([]*session, 0, len(a.sessions))
	for _, s := range a.sessions {
		left = append(left, s)
	}
	a.mu.Unlock()
	for _, s := range left {
		s.end(ending{reason: reasonShutdown, code: closeRestart})
	}
	<-a.empty
	for _, s := range left {
		<-s.done
	}
}

// enter counts a request as the agent's own goroutine, unless it is too late for any.
func (a *agent) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.owned.Add(1)
	}
	return !a.over
}

// held is the number of slots taken.
func (a *agent) held() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.sessions)
}

// stdinEnd is closed when standard input ends. Its goroutine is the one that nobody waits
// for: a read of standard input cannot be called off.
func stdinEnd() <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		buf := make([]byte, 512)
		for {
			if _, err := os.Stdin.Read(buf); err != nil {
				return
			}
		}
	}()
	return end
}

// validID tells whether id may become part of a path: state.ValidID, which this side cannot
// import.
func validID(id string) bool {
	return id != "" && len(id) <= 128 && strings.IndexFunc(id, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-')
	}) < 0
}
