//go:build linux

// Command conformance judges the relay of the built program: the groups of the Autobahn suite,
// restated for one who stands between two endpoints. Whatever either of them sends, good or bad
// and cut anywhere, must reach the other one byte for byte, the answer must come back, and after
// the end nothing may be left of it.
//
//	go run ./e2e/conformance -run '7.*' -junit report.xml
//
// Both endpoints are ours, on raw sockets, in front of and behind `wallcrawler serve` with a real
// redis-server. The last line is "N checks, M failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

var errFailed = errors.New("checks have failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case !errors.Is(err, errFailed):
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	pattern := flags.String("run", "*", "comma list of ids: 7.*, 9.1.6/to-client, 14.?")
	file := flags.String("junit", "", "write a JUnit report to this file")
	verbose := flags.Bool("v", false, "show the checks that pass, too")
	binary := flags.String("binary", "", "the program (default: built)")
	workers := flags.Int("workers", 4, "checks at a time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(checks(), *pattern)
	if err != nil {
		return err
	}
	g := &stage.Stage{Binary: *binary}
	if g.Tmp, err = os.MkdirTemp("", "wc-conformance-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(g.Tmp)) }()
	if g.Binary == "" {
		g.Binary = filepath.Join(g.Tmp, "wallcrawler")
		if err := stage.Build(ctx, g.Binary); err != nil {
			return err
		}
	}
	r := &report{out: out, verbose: *verbose}
	if err := perform(ctx, g, chosen, *workers, r.add); err != nil {
		return err
	}
	r.summary()
	if *file != "" {
		if err := r.save(*file); err != nil {
			return err
		}
	}
	if r.failed > 0 {
		return errFailed
	}
	return nil
}

// choose keeps the checks whose id, or their case's, matches one of the patterns.
func choose(all []check, patterns string) (chosen []check, err error) {
	for _, c := range all {
		id, _, _ := strings.Cut(c.id, "/")
		for p := range strings.SplitSeq(patterns, ",") {
			short, err := path.Match(p, id)
			full, fullErr := path.Match(p, c.id)
			if err := errors.Join(err, fullErr); err != nil {
				return nil, fmt.Errorf("-run %q: %w", p, err)
			}
			if short || full {
				chosen = append(chosen, c)
				break
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-run %q: no check has such an id", patterns)
	}
	return chosen, nil
}

// perform runs the checks group by group, some at a time, and after each group looks whether all
// is freed. Results come from one goroutine at a time.
func perform(ctx context.Context, g *stage.Stage, all []check, workers int, add func(result)) error {
	w, err := newWorld(ctx, g, workers)
	if err != nil {
		return err
	}
	defer w.Close()
	sessions := make(chan *session, workers)
	for range workers {
		s, err := w.open(ctx)
		if err != nil {
			return err
		}
		// The first connection of each waits for the session, and makes what is made once.
		if err := (testCase{frames: list(text("hello")), large: true, want: stays(1, 0)}).check(s, toBrowser); err != nil {
			return fmt.Errorf("before all checks: %w", err)
		}
		sessions <- s
	}
	if err := w.note(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	for len(all) > 0 && ctx.Err() == nil {
		n := 1
		for n < len(all) && all[n].group == all[0].group {
			n++
		}
		var group sync.WaitGroup
		for _, c := range all[:n] {
			s := <-sessions
			group.Go(func() {
				begin := time.Now()
				err := c.run(s)
				mu.Lock()
				defer mu.Unlock()
				add(result{c, err, time.Since(begin)})
				sessions <- s
			})
		}
		group.Wait()
		begin := time.Now()
		err := w.freed(ctx)
		add(result{check{group: all[0].group, id: all[0].group + "/freed", title: "nothing is left of all these connections"}, err, time.Since(begin)})
		all = all[n:]
	}
	return ctx.Err()
}
