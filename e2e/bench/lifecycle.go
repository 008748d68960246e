//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// lifecycleRun is one way of running lifecycles. A block is a number of lifecycles of one
// target, back to back; after each block the service may finish what it has put off.
type lifecycleRun struct {
	what                       string
	concurrency, block, rounds int
	slots, warm                int
}

// measured is what one target took.
type measured struct {
	Times []float64 // milliseconds
	Wall  float64   // milliseconds, all blocks
	cpu   time.Duration
	own   time.Duration // the part of cpu that is no browser's; known of ours only
}

func (m measured) sample() sample {
	var s sample
	for _, t := range m.Times {
		s = append(s, time.Duration(t*float64(time.Millisecond)))
	}
	return s
}

func (m measured) perCPU() time.Duration { return m.cpu / time.Duration(max(1, len(m.Times))) }
func (m measured) perOwn() time.Duration { return m.own / time.Duration(max(1, len(m.Times))) }

// lifecycle compares whole lifecycles with Playwright on the service, on a browser that is
// there already and on one that is spawned for each.
func lifecycle(ctx context.Context, b *bench) error {
	site, err := startSite()
	if err != nil {
		return err
	}
	defer func() { _ = site.Close() }()
	b.title("Lifecycle with Playwright: create + connect + new page + goto(local page) + release")
	runs := []lifecycleRun{
		{"sequential, paced", 1, 1, b.count(40), 4, 1},
		{"sequential, back to back", 1, b.count(10), 4, 8, 2},
		{"4 at a time", 4, b.count(16), 3, 12, 4},
		{"8 at a time", 8, b.count(24), 3, 24, 8},
	}
	times := [][]string{{"run", "n each", "ours p50 ms", "ours p99", "bare warm p50", "bare warm p99", "spawned p50", "spawned p99", "ours/bare (≤ 1.25)", "ours/spawned"}}
	cpu := [][]string{{"run", "ours CPU ms", "of it dev and agent", "bare warm", "spawned", "ours/spawned (≤ 1.15)", "ours per s", "bare warm per s", "spawned per s", "`dev --containers 1` and"}}
	var idle time.Duration
	for _, r := range runs {
		got, of, err := b.lifecycles(ctx, r, site.url)
		if err != nil {
			return fmt.Errorf("%s: %w", r.what, err)
		}
		idle = of
		fmt.Fprintf(os.Stderr, "bench: measured lifecycles: %s\n", r.what)
		ours, bare, spawned := got["ours"], got["bare"], got["spawned"]
		o, w, s := ours.sample(), bare.sample(), spawned.sample()
		times = append(times, []string{r.what, fmt.Sprint(len(o)), ms(o.p50()), ms(o.quantile(0.99)), ms(w.p50()), ms(w.quantile(0.99)),
			ms(s.p50()), ms(s.quantile(0.99)), ratio(o.p50(), w.p50()), ratio(o.p50(), s.p50())})
		rate := func(m measured) string { return fmt.Sprintf("%.2f", float64(len(m.Times))/m.Wall*1000) }
		cpu = append(cpu, []string{r.what, ms(ours.perCPU()), ms(ours.perOwn()), ms(bare.perCPU()), ms(spawned.perCPU()), ratio(ours.perCPU(), spawned.perCPU()),
			rate(ours), rate(bare), rate(spawned), fmt.Sprintf("`--sessions-per-container %d --warm %d`", r.slots, r.warm)})
	}
	table(b.out, times)
	fmt.Fprintln(b.out)
	table(b.out, cpu)
	fmt.Fprintf(b.out, "\nTargets take turns in blocks (paced: of 1; the others: of 10, 16 and 24), in another order each round; between blocks the warm browsers are refilled, within a block refilling competes with the lifecycles. "+
		"CPU is user and system time of the whole process tree (ours: dev with Redis, agent and all browsers; all of it, also what it uses while the others have their turn), the client's excluded. An idle dev with its warm browsers uses %s ms of CPU per second.\n", ms(idle))
	return nil
}

// lifecycles runs one comparison. idle is the CPU time that the service uses per second
// while nothing is asked of it.
func (b *bench) lifecycles(ctx context.Context, r lifecycleRun, site string) (got map[string]measured, idle time.Duration, err error) {
	d, err := b.startDev(ctx, r.slots, r.warm)
	if err != nil {
		return nil, 0, err
	}
	defer d.Stop(syscall.SIGINT)
	args, err := browserArgs(d.Pid())
	if err != nil {
		return nil, 0, fmt.Errorf("finding the agent's browser: %w", err)
	}
	bare, bareURL, err := b.startBrowser(ctx, args)
	if err != nil {
		return nil, 0, err
	}
	defer bare.Stop(syscall.SIGKILL)

	input, err := json.Marshal(map[string]any{
		"clients": b.clients, "api": d.api.URL, "key": d.api.Key, "site": site, "bare": bareURL, "browser": b.browser, "browserArgs": args,
		"tmp": b.Tmp, "warm": r.warm, "concurrency": r.concurrency, "block": r.block, "rounds": r.rounds,
	})
	if err != nil {
		return nil, 0, err
	}
	answers, stdout := io.Pipe()
	script := filepath.Join(b.Tmp, "lifecycle.mjs")
	if err := os.WriteFile(script, lifecycleScript, 0o600); err != nil {
		return nil, 0, err
	}
	node, err := b.Start(stage.Program{Name: "node", Path: "node", Args: []string{script}, Stdin: true, Stdout: stdout,
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.Tmp, "TMPDIR=" + b.Tmp, "INPUT=" + string(input)}})
	if err != nil {
		return nil, 0, err
	}
	known := []int{d.Pid(), bare.Pid(), node.Pid()}
	stopped := make(chan struct{})
	go func() { // nobody writes any more: the reader below must not wait for ever
		defer close(stopped)
		select {
		case <-node.Done:
		case <-ctx.Done():
		}
		_ = stdout.CloseWithError(errors.Join(io.ErrUnexpectedEOF, ctx.Err()))
	}()
	defer func() {
		node.Stop(syscall.SIGTERM)
		<-stopped
		reap(known...)
	}()
	lines := bufio.NewReader(answers)
	next := func(into any) error {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("reading what node says: %w: %s", err, node.Output.Text())
		}
		return json.Unmarshal(text, into)
	}
	var ready string
	if err := next(&ready); err != nil {
		return nil, 0, err
	}
	const idleFor = 3 * time.Second
	before := treeCPU(d.Pid())
	if err := stage.Pause(ctx, idleFor); err != nil {
		return nil, 0, err
	}
	idle = (treeCPU(d.Pid()) - before) / time.Duration(idleFor/time.Second)

	use := func() map[string]time.Duration {
		return map[string]time.Duration{
			"ours": treeCPU(d.Pid()), "bare": treeCPU(bare.Pid()), "spawned": descendantsCPU(node.Pid()) + orphansCPU(known...),
		}
	}
	from, ownFrom := use(), programCPU(d.Pid())
	if _, err := io.WriteString(node.Stdin, "go\n"); err != nil {
		return nil, 0, err
	}
	got = map[string]measured{}
	if err := next(&got); err != nil {
		return nil, 0, err
	}
	to, ownTo := use(), programCPU(d.Pid())
	for name, m := range got {
		m.cpu = to[name] - from[name]
		if name == "ours" {
			m.own = ownTo - ownFrom
		}
		got[name] = m
	}
	return got, idle, nil
}

// startBrowser starts a browser that stays, with the flags of the agent's.
func (b *bench) startBrowser(ctx context.Context, args []string) (*stage.Process, string, error) {
	dir, err := os.MkdirTemp(b.Tmp, "bare-")
	if err != nil {
		return nil, "", err
	}
	args = append([]string{"--user-data-dir=" + dir}, args...)
	p, err := b.Start(stage.Program{Name: "chromium", Path: b.browser, Args: args,
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "DBUS_SESSION_BUS_ADDRESS=disabled:"}})
	if err != nil {
		return nil, "", err
	}
	listening := regexp.MustCompile(`DevTools listening on (ws:\S+)`)
	var url string
	err = p.Until(ctx, 20*time.Second, "the browser listens", func() error {
		found := listening.FindStringSubmatch(p.Output.Text())
		if found == nil {
			return stage.ErrNotYet
		}
		url = found[1]
		return nil
	})
	if err != nil {
		p.Stop(syscall.SIGKILL)
		return nil, "", err
	}
	return p, url, nil
}

// site serves the page that the lifecycles visit.
type site struct {
	*http.Server
	url string
}

func startSite() (*site, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{&http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<!doctype html><title>bench</title><link rel="icon" href="data:,"><h1>A page</h1><p>with a little text`)
	})}, "http://" + l.Addr().String() + "/"}
	go func() { _ = s.Serve(l) }() // ends with Close
	return s, nil
}
