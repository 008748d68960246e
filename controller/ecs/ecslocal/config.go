package ecslocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Config says what the endpoint offers. The zero value of a field is its default.
type Config struct {
	Listen         string // of the API; default 127.0.0.1:0
	MetadataListen string // of the tasks' metadata; default 127.0.0.1:0
	Cluster        string // the one cluster; default "default"
	Region         string // default us-east-1
	Account        string // twelve digits; default 000000000000

	Definitions map[string]Definition // by family; at least one
	Delays      Delays

	// Script says how the endpoint behaves over time; none: as on a good day. See ParseScript.
	Script []Step

	// Network is where tasks get their addresses from, the first two and the last excepted;
	// default 127.0.0.0/24. Every address in it must be the machine's own: Linux has all of
	// 127.0.0.0/8, macOS wants `ifconfig lo0 alias` for each but 127.0.0.1.
	Network netip.Prefix

	// InheritEnv names variables that tasks get from this process besides PATH and HOME.
	// Nothing else of this process's environment reaches them.
	InheritEnv []string

	Retention time.Duration // how long stopped tasks can be described; default an hour
	Log       *slog.Logger  // default: none
}

// Definition is a task definition of one essential container. Exactly one of Command and Run
// is given.
type Definition struct {
	Revision  int    // default 1
	Container string // the container's name; default BrowserContainer

	// Command is started as a child process, in a session and process group of its own, with
	// a TMPDIR of its own that is removed after it. Its standard input is a pipe that nobody
	// writes to and whose other end this process alone holds: it reads EOF when this process is
	// gone, however it died. (PR_SET_PDEATHSIG would not do: it fires when the *thread* that
	// started the child ends, and Go ends threads as it likes.)
	Command []string
	// Run stands in for Command within this process. It is to return its exit code soon after
	// ctx ends, which is the task's SIGTERM.
	Run func(ctx context.Context, env TaskEnv) int

	Env         []string      // NAME=value
	Port        int           // where the container will listen; proves that its address is free. 0: not checked
	StopTimeout time.Duration // from SIGTERM to SIGKILL; default 30 s
	Stdout      io.Writer     // default: discarded. Written to by one task at a time
	Stderr      io.Writer
}

// Delays are how long a task stays in each state on its way.
type Delays struct {
	Provisioning, Pending, Activating, Deactivating, Deprovisioning time.Duration
}

// TaskEnv is what a Definition's Run gets to know.
type TaskEnv struct {
	ARN    string
	Addr   string // the task's own address
	Port   int    // the definition's
	Env    map[string]string
	Killed <-chan struct{} // closed where a process would get SIGKILL
}

var (
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	digitsPattern = regexp.MustCompile(`^[0-9]{12}$`)
)

// withDefaults fills in the defaults and checks the rest.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Listen, "127.0.0.1:0")
	setDefault(&c.MetadataListen, "127.0.0.1:0")
	setDefault(&c.Cluster, "default")
	setDefault(&c.Region, "us-east-1")
	setDefault(&c.Account, "000000000000")
	setDefault(&c.Retention, time.Hour)
	if !c.Network.IsValid() {
		c.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 0}), 24)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}

	var errs []error
	if !namePattern.MatchString(c.Cluster) {
		errs = append(errs, fmt.Errorf("cluster %q: want letters, digits, - and _", c.Cluster))
	}
	if !digitsPattern.MatchString(c.Account) {
		errs = append(errs, fmt.Errorf("account %q: want twelve digits", c.Account))
	}
	if !c.Network.Addr().Is4() || !c.Network.Addr().IsLoopback() || c.Network.Bits() < 8 || c.Network.Bits() > 29 {
		errs = append(errs, fmt.Errorf("network %s: want a part of 127.0.0.0/8 with room, a /29 or larger", c.Network))
	}
	if err := checkScript(c.Script); err != nil {
		errs = append(errs, fmt.Errorf("script: %w", err))
	}
	if len(c.Definitions) == 0 {
		errs = append(errs, errors.New("no task definition: want at least one"))
	}
	definitions := make(map[string]Definition, len(c.Definitions))
	output := new(sync.Mutex) // one for all: definitions may share a writer
	for family, d := range c.Definitions {
		if !namePattern.MatchString(family) {
			errs = append(errs, fmt.Errorf("task definition %q: want a family of letters, digits, - and _", family))
		}
		if (len(d.Command) == 0) == (d.Run == nil) {
			errs = append(errs, fmt.Errorf("task definition %s: want either a command or a function to run", family))
		}
		for _, kv := range d.Env {
			if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
				errs = append(errs, fmt.Errorf("task definition %s: an entry of its environment is not NAME=value", family))
			}
		}
		setDefault(&d.Revision, 1)
		setDefault(&d.Container, "BrowserContainer")
		setDefault(&d.StopTimeout, 30*time.Second)
		d.Stdout, d.Stderr = oneAtATime(output, d.Stdout), oneAtATime(output, d.Stderr)
		definitions[family] = d
	}
	c.Definitions = definitions
	return c, errors.Join(errs...)
}

// setDefault gives *v the value def if it has none.
func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// oneAtATime lets the tasks write to w in turn. A file needs no help: the kernel takes care.
func oneAtATime(mu *sync.Mutex, w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	if file, ok := w.(*os.File); ok {
		return file
	}
	return &turnWriter{mu: mu, w: w}
}

type turnWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (t *turnWriter) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w.Write(p)
}
