//go:build linux

// Command soak keeps thousands of sessions on the built program for a long time, idle, busy, and
// coming and going, and fits a line to what it uses meanwhile:
//
//	go run ./e2e/soak -minutes 30 -sessions 5000
//
// `wallcrawler serve` and redis-server are real; clients and containers are in this process. A
// sample is taken every few seconds, and judged after a third of the time: what grows then is a
// leak. At the end every browser still answers, all clients leave, and nothing may be left of them.
// The last line is "N passed, N failed".
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
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

var errFailed = errors.New("something has failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case !errors.Is(err, errFailed):
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	minutes := flags.Float64("minutes", 30, "how long, at least one")
	sessions := flags.Int("sessions", 5000, "how many are held, at least 100")
	binary := flags.String("binary", "", "the program (default: built)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *minutes < 1 || *minutes > 300 || *sessions < 100 {
		return errors.New("-minutes must be from 1 to 300, and -sessions at least 100")
	}
	// Two for each session here, and two in the service: client and container.
	need := uint64(2**sessions + 1000)
	if limit, err := stage.RaiseFiles(need); err != nil {
		return err
	} else if limit < need {
		return fmt.Errorf("%d sessions need %d open files, and %d are allowed: raise the limit (ulimit -Hn %d, as root) or hold fewer (-sessions %d)",
			*sessions, need, limit, need, max(100, (int(limit)-1000)/2))
	}
	g := &stage.Stage{Binary: *binary}
	if g.Tmp, err = os.MkdirTemp("", "wc-soak-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(g.Tmp)) }()
	if g.Binary == "" {
		g.Binary = filepath.Join(g.Tmp, "wallcrawler")
		if err := stage.Build(ctx, g.Binary); err != nil {
			return err
		}
	}
	failed, err := soak(ctx, g, *sessions, time.Duration(*minutes*float64(time.Minute)), out)
	if err == nil && failed > 0 {
		err = errFailed
	}
	return err
}

// soak holds the sessions and prints what came of it.
func soak(ctx context.Context, g *stage.Stage, sessions int, length time.Duration, out io.Writer) (failed int, err error) {
	const slots = 250 // of a container
	backend := &backend{}
	spare := slots // for sessions that come and go
	s, err := g.StartService(ctx, stage.Options{Containers: (sessions + spare + slots - 1) / slots, Slots: slots, Notifications: true, Sockets: backend.serve})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	before, err := s.Vitals(ctx)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "%d sessions for %s: opening them\n", sessions, length)
	c, err := gather(ctx, s, sessions, length)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "all are there after %s\n\n", c.opening.Round(time.Second))
	c.start(ctx)
	samples, err := watch(ctx, s, c, length, out)
	c.stop()
	if err != nil {
		return 0, err
	}
	lost := c.rollCall(ctx)
	c.leave(ctx)

	v := &verdicts{out: out}
	fmt.Fprintf(out, "\n%-12s %14s %14s %16s %27s %8s\n", "what", "at a third", "at the end", "slope per hour", "growth", "trend")
	for _, q := range quantities() {
		v.judgeSlope(q, samples, length)
	}
	fmt.Fprintf(out, "\n%s\n", c.told())
	v.judge("enough has moved", c.moved(length))
	v.judge("clients were never cut nor misled", c.trouble())
	v.judge("every session still answers", lost)
	v.judge("the service has complained of nothing", silent(s))
	v.judge("nothing is left when all have left", freed(ctx, s, before))
	fmt.Fprintf(out, "\n%d passed, %d failed\n", v.passed, v.failed)
	return v.failed, nil
}

// silent tells what a service has printed: it prints errors only.
func silent(s *stage.Service) error {
	if text := s.Output.Text(); text != "" {
		return fmt.Errorf("it has printed: %s", text)
	}
	return nil
}

// Of what is there without clients, so much more may remain: timers, pools, connections kept.
const (
	moreGoroutines = 60
	moreFiles      = 60
)

// freed waits until a service holds what it held before there were clients.
func freed(ctx context.Context, s *stage.Service, before stage.Vitals) error {
	return s.Until(ctx, 2*time.Minute, "all is freed", func() error {
		now, err := s.Vitals(ctx)
		if err == nil && (now.Clients > 0 || now.Files > before.Files+moreFiles || now.Goroutines > before.Goroutines+moreGoroutines) {
			err = fmt.Errorf("%d clients, %d files (%d before), %d goroutines (%d before): %w",
				now.Clients, now.Files, before.Files, now.Goroutines, before.Goroutines, stage.ErrNotYet)
		}
		return err
	})
}
