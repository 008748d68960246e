//go:build linux

// Command bench measures the built program and prints what it measured as Markdown:
//
//	go run ./e2e/bench
//
// docs/performance.md says what each number means. It measures and judges nothing; it must not
// be run beside other work, since everything it starts shares the machine's cores.
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
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// bench is what all sections share.
type bench struct {
	stage.Stage
	browser string // Chromium's executable
	clients string // the npm project with playwright-core
	out     io.Writer
	scale   float64  // of the counts
	rounds  int      // of the relay
	targets string   // of the relay
	beside  []string // other builds of the program, for the relay
}

// section is one part of the measurement. It prints its own tables.
type section struct {
	name  string
	run   func(context.Context, *bench) error
	asked bool // it runs only when it is named
}

func sections() []section {
	return []section{
		{name: "create", run: create},
		{name: "lifecycle", run: lifecycle},
		{name: "document", run: document},
		{name: "crowd", run: crowd},
		{name: "bind", run: bind},
		{name: "plan", run: planning},
		{name: "v1", run: envelopes},
		{name: "relay", run: relaying, asked: true},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if args := os.Args[1:]; len(args) > 0 && args[0] == reverseProxyCommand {
		err = reverseProxy(args[1:])
	} else {
		err = run(ctx, args, os.Stdout)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	var names, usual []string
	for _, s := range sections() {
		names = append(names, s.name)
		if !s.asked {
			usual = append(usual, s.name)
		}
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", strings.Join(usual, ","), "comma list of sections")
	flags.IntVar(&b.rounds, "rounds", 3, "relay: how often each load is measured")
	flags.StringVar(&b.targets, "relay", "", "relay: comma list of loads and proxies to measure; empty: all")
	beside := flags.String("beside", "", "relay: comma list of other builds of the program to measure in the same rounds")
	flags.Float64Var(&b.scale, "scale", 1, "multiplies every count; below 1 for a trial")
	flags.StringVar(&b.Binary, "binary", "", "the program (default: built)")
	flags.StringVar(&b.browser, "browser", "/usr/lib/chromium/chromium-headless-shell", "Chromium's executable, not a wrapper around it")
	flags.StringVar(&b.clients, "clients", "e2e/clients", "directory whose node_modules has playwright-core")
	flags.BoolVar(&b.Verbose, "v", false, "show what the started programs print")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no section %q: use %s", name, strings.Join(names, ", "))
		}
	}
	if err := adoptOrphans(); err != nil {
		return err
	}
	if b.Tmp, err = os.MkdirTemp("", "wc-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.Tmp)) }()
	for _, path := range strings.FieldsFunc(*beside, func(c rune) bool { return c == ',' }) {
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		b.beside = append(b.beside, path)
	}
	if b.clients, err = filepath.Abs(b.clients); err != nil {
		return err
	}
	if b.Binary == "" {
		b.Binary = filepath.Join(b.Tmp, "wallcrawler")
		if err := stage.Build(ctx, b.Binary); err != nil {
			return err
		}
	} else if b.Binary, err = filepath.Abs(b.Binary); err != nil {
		return err
	}

	begin := time.Now()
	fmt.Fprintf(out, "Measured %s on %d cores (%s/%s, %s).\n", begin.UTC().Format("2006-01-02 15:04 UTC"),
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, cpuModel())
	if b.scale != 1 {
		fmt.Fprintf(out, "\n**A trial with %g times the usual counts.**\n", b.scale)
	}
	for _, s := range sections() {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		load := loadAverage()
		at := time.Now()
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
		fmt.Fprintf(out, "\n(%s; load average %s before)\n", time.Since(at).Round(time.Second), load)
	}
	fmt.Fprintf(out, "\nIn all %s.\n", time.Since(begin).Round(time.Second))
	return nil
}

// service is one that is measured.
type service struct{ *stage.Service }

func (b *bench) startService(ctx context.Context, o stage.Options) (*service, error) {
	s, err := b.StartService(ctx, o)
	return &service{s}, err
}

// count scales a count.
func (b *bench) count(n int) int { return max(2, int(float64(n)*b.scale)) }

func (b *bench) title(format string, args ...any) {
	fmt.Fprintf(b.out, "\n### "+format+"\n\n", args...)
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
