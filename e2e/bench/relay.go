//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// quantity is a row of the relay's tables.
type quantity struct {
	name string
	goal string // of ours, against the peer or absolute
	base string // the peer whose ratio counts; empty: the best one
}

func quantities() []quantity {
	return []quantity{
		{"CPU µs per round trip", "≤ 1.00, first step 1.20", "nginx-32k"},
		{"bulk, CPU ms per GB", "≤ 0.90, first step 1.05", "nginx-32k"},
		{"screencast, CPU ms per GB", "≤ 1.00, first step 1.40", "nginx-32k"},
		{"screencast p50 µs", "", ""},
		{"set-up, CPU µs per session", "≤ 1.00, first step 1.80", "nginx"},
		{"p50 µs, 100 sessions", "≤ 1.00, first step 1.10", ""},
		{"p50 µs, 1000 sessions", "≤ 1.00, first step 1.10", ""},
		{"idle kB", "≤ 4.6 kB, first step 11 kB", ""},
		{"idle kB after 60 kB", "≤ 4.6 kB, first step 11 kB", ""},
		{"stalled kB", "≤ 60 kB, first step 100 kB", ""},
		{"stalled kB: kernel", "", ""},
		{"stalled kB, 5 MB messages", "≤ 60 kB, first step 100 kB", ""},
		{"stalled kB, 5 MB messages: kernel", "", ""},
		{"sessions held", "9,900, first step 9,000", ""},
		{"their CPU, ms per s", "0", ""},
	}
}

// relaying measures the relay beside what else could stand in its place. In each round each
// load is put on each proxy, in an order that is drawn anew; ratios are taken within a round.
func relaying(ctx context.Context, b *bench) error {
	l, err := startLab()
	if err != nil {
		return err
	}
	defer l.close()
	backend, stop, err := serveBackend(l)
	if err != nil {
		return err
	}
	defer stop()
	r := &relayBench{bench: b, lab: l, backend: backend, results: map[string]map[string][]float64{}}
	defer r.retire()
	chosen := strings.FieldsFunc(b.targets, func(c rune) bool { return c == ',' })
	names := []string{ourName}
	proxies := []string{ourName}
	for _, path := range b.beside {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("-beside: %w", err)
		}
		proxies = append(proxies, filepath.Base(path))
		names = append(names, filepath.Base(path))
	}
	r.builds = slices.Clone(proxies)
	for _, p := range peers(b.clients) {
		names = append(names, p.name)
		if p.has() {
			r.peers = append(r.peers, p)
		} else {
			fmt.Fprintf(b.out, "\n%s is not installed and left out: .ci/setup bench\n", p.name)
		}
	}
	var work []load
	for _, w := range loads() {
		names = append(names, w.name)
		if slices.Contains(chosen, w.name) {
			work = append(work, w)
		}
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("two things to measure are called %s: name the files of -beside otherwise", name)
		}
	}
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no load or proxy %q: use %s", name, strings.Join(names, ", "))
		}
	}
	if len(work) == 0 {
		work = loads()
	}
	for _, p := range r.peers {
		proxies = append(proxies, p.name)
	}
	if some := slices.DeleteFunc(slices.Clone(proxies), func(n string) bool { return !slices.Contains(chosen, n) }); len(some) > 0 {
		proxies = some
	}

	b.title("Relay: %d rounds", b.rounds)
	for round := range b.rounds {
		for _, w := range work {
			if w.once && round > 0 {
				continue
			}
			order := slices.Clone(proxies)
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, name := range order {
				if err := r.measure(ctx, round, w, name); err != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					fmt.Fprintf(b.out, "%s with %s: **%v**\n\n", name, w.name, err)
				}
			}
		}
	}
	r.print(proxies)
	return nil
}

// relayBench is one run of the section.
type relayBench struct {
	*bench
	lab     *lab
	backend netip.AddrPort // for peers
	peers   []peer
	builds  []string          // names of those that are ours
	alive   map[string]target // proxies that serve several loads
	// results are by quantity and proxy, one for each round.
	results map[string]map[string][]float64
}

func (r *relayBench) retire() {
	for _, t := range r.alive {
		t.close()
	}
	r.alive = nil
}

// sharedSessions is enough for every load that needs no fresh proxy.
const sharedSessions = 1000

func (r *relayBench) measure(ctx context.Context, round int, w load, name string) error {
	n := w.sessions
	if n > 100 {
		n = r.count(n)
	}
	t, err := r.target(ctx, w, name, n)
	if err != nil {
		return err
	}
	if w.fresh {
		defer t.close()
	}
	r.lab.failed = nil
	m, err := w.run(ctx, r.lab, t, n)
	if err != nil {
		return err
	}
	for what, v := range m {
		if r.results[what] == nil {
			r.results[what] = map[string][]float64{}
		}
		list := r.results[what][name]
		for len(list) <= round {
			list = append(list, math.NaN())
		}
		list[round] = v
		r.results[what][name] = list
	}
	// What the load has closed is over before the next one.
	return r.lab.rest(ctx, 200*time.Millisecond)
}

// target gives a proxy: one that runs already, unless the load needs a fresh one.
func (r *relayBench) target(ctx context.Context, w load, name string, sessions int) (target, error) {
	if t, ok := r.alive[name]; ok && !w.fresh {
		return t, nil
	}
	if !w.fresh {
		sessions = sharedSessions
	}
	var t target
	var err error
	if at := slices.Index(r.builds, name); at == 0 {
		t, err = r.startOurs(ctx, r.lab, sessions)
	} else if at > 0 {
		other := *r.bench
		other.Binary = r.beside[at-1]
		t, err = other.startOurs(ctx, r.lab, sessions)
	} else {
		i := slices.IndexFunc(r.peers, func(p peer) bool { return p.name == name })
		t, err = r.startPeer(ctx, r.peers[i], r.backend)
	}
	if err == nil && !w.fresh {
		if r.alive == nil {
			r.alive = map[string]target{}
		}
		r.alive[name] = t
	}
	return t, err
}

// print shows medians, and in brackets the median of the ratios within rounds.
func (r *relayBench) print(proxies []string) {
	header := append([]string{"what"}, proxies...)
	rows := [][]string{append(slices.Clone(header), "goal of ours")}
	others := [][]string{header}
	for _, q := range quantities() {
		of := r.results[q.name]
		if of == nil {
			continue
		}
		row, other := []string{q.name}, []string{q.name}
		base := r.base(q, proxies)
		for _, name := range proxies {
			cell := number(median(of[name]))
			if ratio := median(ratios(of[name], of[base])); q.goal != "" && !math.IsNaN(ratio) {
				cell += fmt.Sprintf(" (%.2f)", ratio)
			}
			row = append(row, cell)
			other = append(other, number(median(ratios(of[name], of[ourName]))))
		}
		rows = append(rows, append(row, q.goal))
		others = append(others, other)
	}
	table(r.out, rows)
	fmt.Fprintf(r.out, "\nMedians; in brackets the median of the ratios, each within one round, to nginx-32k (set-up: nginx; latency, memory: the peer with the lowest median).\n")
	if len(r.builds) > 1 && slices.Contains(proxies, ourName) {
		fmt.Fprintf(r.out, "\nMedian of the ratios to %s, each within one round:\n\n", ourName)
		table(r.out, others)
	}
}

// base is the proxy that a quantity's ratios are to; empty: none was measured. The best one is found
// by its median: the least of several in each round would be a peer that nobody has, made of
// each one's luck.
func (r *relayBench) base(q quantity, proxies []string) (best string) {
	if q.base != "" {
		return q.base
	}
	for _, name := range proxies {
		v := median(r.results[q.name][name])
		if slices.Contains(r.builds, name) || math.IsNaN(v) {
			continue
		}
		if best == "" || v < median(r.results[q.name][best]) {
			best = name
		}
	}
	return best
}

func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.Abs(v) < 10:
		return fmt.Sprintf("%.2f", v)
	case math.Abs(v) < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// serveBackend is the browsers' side for peers: what a fake container is for ours.
func serveBackend(l *lab) (addr netip.AddrPort, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(l.serve), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { // stop waits for it
		defer close(done)
		_ = server.Serve(listener)
	}()
	return listener.Addr().(*net.TCPAddr).AddrPort(), func() {
		_ = server.Close()
		<-done
	}, nil
}

// pinSelf puts this process, and what it starts, on the first core.
func pinSelf() error {
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("the relay is measured with a core of its own: there is %d", runtime.NumCPU())
	}
	return pinProcess(os.Getpid())
}
