//go:build linux

// Command chaos does to running processes what production does to them, and looks whether the
// promises hold:
//
//	go run ./e2e/chaos [-run PATTERN] [-times 2]
//
// Three replicas of the built program, a real redis-server (then a Redis Cluster of six), agents
// with browsers as ECS tasks on the local endpoint, clients that never pause. Replicas, agents and
// Redis are killed, frozen and cut off; ECS calls are stalled and lost. After each it compares what
// runs in ECS with what the registry knows, counts tasks, and asks every client whether its page
// is still there. The last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

var errFailed = errors.New("something has failed")

func main() {
	playRoles()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case !errors.Is(err, errFailed):
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	pattern := flags.String("run", "", "only the faults whose names match")
	times := flags.Int("times", 2, "how often each kill of a leader is repeated")
	binary := flags.String("binary", "", "the program (default: built)")
	chromium := flags.String("chromium", "/usr/lib/chromium/chromium-headless-shell", "one browser in ten is this one, if it is there")
	verbose := flags.Bool("v", false, "show what the processes print")
	if err := flags.Parse(args); err != nil {
		return err
	}
	only, err := regexp.Compile(*pattern)
	if err != nil || *times < 1 || *times > 100 {
		return errors.New("-run must be a regular expression, and -times from 1 to 100")
	}
	if _, err := os.Stat(*chromium); err != nil {
		*chromium = ""
	}
	redis.SetLogger(silence{}) // a server that is killed is no news here
	g := &stage.Stage{Binary: *binary, Verbose: *verbose}
	if g.Tmp, err = os.MkdirTemp("", "wc-chaos-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(g.Tmp)) }()
	if err := os.Setenv("TMPDIR", g.Tmp); err != nil { // for tasks, too
		return err
	}
	if g.Binary == "" {
		g.Binary = filepath.Join(g.Tmp, "wallcrawler")
		if err := stage.Build(ctx, g.Binary); err != nil {
			return err
		}
	}
	r := &report{out: out}
	for _, clustered := range []bool{false, true} {
		if err := play(ctx, g, setting{clustered: clustered, chromium: *chromium, times: *times, only: only}, r); err != nil {
			return err
		}
	}
	r.finish()
	if r.failed > 0 || r.passed == 0 {
		return errFailed
	}
	return nil
}

// silence is a log that keeps nothing.
type silence struct{}

// Printf implements the client's log.
func (silence) Printf(context.Context, string, ...any) {}
