//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// measures are what one load has shown of one proxy, by the names of the table's columns.
type measures map[string]float64

// load is one way to use a proxy.
type load struct {
	name string
	// fresh says that it needs a proxy that has served nobody yet.
	fresh bool
	once  bool // in the first round only
	// sessions is how many are used, before scaling.
	sessions int
	run      func(ctx context.Context, l *lab, t target, n int) (measures, error)
}

func loads() []load {
	return []load{
		{name: "messages", sessions: 100, run: messages},
		{name: "bulk", sessions: 2, run: bulk},
		{name: "screencast", sessions: 20, run: screencast},
		{name: "setup", sessions: 1000, run: setups},
		{name: "latency100", sessions: 100, run: latency},
		{name: "latency1000", sessions: 1000, run: latency},
		{name: "idle", sessions: 5000, fresh: true, run: idleSessions},
		{name: "stalled", sessions: 50, fresh: true, run: stalled(60_000)},
		{name: "stalled5M", sessions: 50, fresh: true, run: stalled(5_000_000)},
		{name: "held", sessions: 9000, fresh: true, once: true, run: held9000},
	}
}

// How long each load warms up and is measured.
const (
	warmFor    = 300 * time.Millisecond
	measureFor = 1500 * time.Millisecond
)

func wantReply(size int) []byte {
	text := fmt.Sprintf("S=%d;", size)
	payload := make([]byte, 200)
	for i := range payload {
		payload[i] = ' '
	}
	copy(payload, text)
	return frame(opText, payload, true)
}

// pingPong sends a request on each socket, and the next one whenever an answer has come. It
// gives the answers' number and bytes, and the processor time that the proxy used.
func pingPong(ctx context.Context, l *lab, t target, sessions, size int) (answers int, bytes int64, cpu time.Duration, err error) {
	all, err := l.openAll(ctx, t, sessions)
	defer func() { l.closeAll(all) }()
	if err != nil {
		return 0, 0, 0, err
	}
	request := wantReply(size)
	count := 0
	for _, s := range all {
		s.message = func(s *socket, _ byte, length int64, _ []byte) {
			if length != int64(size) {
				l.fail(fmt.Errorf("%w: %d bytes, not %d", errDamaged, length, size))
			}
			count++
			s.write(request)
		}
		s.write(request)
	}
	if err := l.rest(ctx, warmFor); err != nil {
		return 0, 0, 0, err
	}
	n, received, used := count, l.received, t.cpu()
	if err := l.rest(ctx, measureFor); err != nil {
		return 0, 0, 0, err
	}
	return count - n, l.received - received, t.cpu() - used, nil
}

// messages measures small ones.
func messages(ctx context.Context, l *lab, t target, n int) (measures, error) {
	count, _, cpu, err := pingPong(ctx, l, t, n, 200)
	return measures{"CPU µs per round trip": per(micro(cpu), count)}, err
}

// bulk measures large answers.
func bulk(ctx context.Context, l *lab, t target, n int) (measures, error) {
	_, bytes, cpu, err := pingPong(ctx, l, t, n, 5_000_000)
	return measures{"bulk, CPU ms per GB": per(micro(cpu)/1e3, int(bytes)) * 1e9}, err
}

// screencast measures frames that the backend sends at a fixed rate.
func screencast(ctx context.Context, l *lab, t target, n int) (measures, error) {
	all, err := l.openAll(ctx, t, n)
	defer func() { l.closeAll(all) }()
	if err != nil {
		return nil, err
	}
	var late sample
	for _, s := range all {
		s.message = func(_ *socket, _ byte, length int64, head []byte) {
			due, err := strconv.ParseInt(string(head[:min(19, len(head))]), 10, 64)
			if length != 60_000 || err != nil {
				l.fail(fmt.Errorf("%w: %d bytes beginning %.20q", errDamaged, length, head))
			}
			late = append(late, l.now()-time.Duration(due))
		}
		s.write(frame(opText, []byte("C=60000,30;"), true))
	}
	if err := l.rest(ctx, warmFor); err != nil {
		return nil, err
	}
	late = late[:0]
	received, used := l.received, t.cpu()
	if err := l.rest(ctx, measureFor); err != nil {
		return nil, err
	}
	cpu := t.cpu() - used
	return measures{
		"screencast, CPU ms per GB": per(micro(cpu)/1e3, int(l.received-received)) * 1e9,
		"screencast p50 µs":         micro(late.p50()),
	}, nil
}

// setups opens and closes sessions, sixteen at a time.
func setups(ctx context.Context, l *lab, t target, n int) (measures, error) {
	bye := frame(opClose, []byte{0x03, 0xe8}, true)
	count, next, active := 0, 0, true
	under := map[*socket]bool{}
	begin := func() {
		if s := l.dial(t, next%n); s != nil && active {
			s.lost = func(s *socket) {
				if active && !s.open {
					l.fail(fmt.Errorf("session %d was refused", s.id))
				}
				delete(under, s)
				count++
			}
			s.message = func(s *socket, op byte, _ int64, _ []byte) {
				if op != opClose {
					l.fail(errDamaged)
				}
				s.end(nil)
			}
			under[s] = false
		}
		next++
	}
	defer func() {
		active = false
		for s := range under {
			s.drop()
		}
	}()
	churn := func(d time.Duration) error {
		end := l.now() + d
		return l.run(ctx, d+time.Minute, "opening and closing", func() bool {
			for len(under) < 16 {
				begin()
			}
			for s, said := range under {
				if s.open && !said {
					under[s] = true
					s.write(bye)
				}
			}
			return l.now() >= end
		})
	}
	if err := churn(warmFor); err != nil {
		return nil, err
	}
	done, used := count, t.cpu()
	if err := churn(measureFor); err != nil {
		return nil, err
	}
	return measures{"set-up, CPU µs per session": per(micro(t.cpu()-used), count-done)}, nil
}

// latency sends 5,000 requests a second, whatever the answers do, and times each from when it
// was due.
func latency(ctx context.Context, l *lab, t target, n int) (measures, error) {
	all, err := l.openAll(ctx, t, n)
	defer func() { l.closeAll(all) }()
	if err != nil {
		return nil, err
	}
	const gap = time.Second / 5000
	request := wantReply(200)
	var took sample
	queues := make([][]time.Duration, n)
	for _, s := range all {
		s.message = func(s *socket, _ byte, _ int64, _ []byte) {
			due := queues[s.id][0]
			queues[s.id] = queues[s.id][1:]
			took = append(took, l.now()-due)
		}
	}
	begin, sent := l.now(), 0
	recordAt := begin + warmFor
	end := recordAt + measureFor
	for l.now() < end {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		due := begin + time.Duration(sent)*gap
		for ; due <= l.now(); due = begin + time.Duration(sent)*gap {
			s := all[sent%n]
			queues[s.id] = append(queues[s.id], due)
			s.write(request)
			sent++
			if due >= recordAt && due-gap < recordAt {
				took = took[:0]
			}
		}
		if err := l.turn(due - l.now()); err != nil {
			return nil, err
		}
	}
	name := fmt.Sprintf("p50 µs, %d sessions", n)
	return measures{name: micro(took.p50()), name + " (p99)": micro(took.quantile(0.99))}, nil
}

// idleSessions measures memory: of sessions that have moved nothing, and after one answer each.
func idleSessions(ctx context.Context, l *lab, t target, n int) (measures, error) {
	before, err := atRest(ctx, l, t)
	if err != nil {
		return nil, err
	}
	all, err := l.openAll(ctx, t, n)
	defer func() { l.closeAll(all) }()
	if err != nil {
		return nil, err
	}
	m := measures{}
	if m["idle kB"], err = grown(ctx, l, t, before, n); err != nil {
		return nil, err
	}
	if err := answerAll(ctx, l, all, 60_000); err != nil {
		return nil, err
	}
	m["idle kB after 60 kB"], err = grown(ctx, l, t, before, n)
	return m, err
}

// answerAll has one answer go to each session.
func answerAll(ctx context.Context, l *lab, all []*socket, size int) error {
	request, sent, got := wantReply(size), 0, 0
	for _, s := range all {
		s.message = func(*socket, byte, int64, []byte) { got++ }
	}
	return l.run(ctx, time.Minute, "answering each session", func() bool {
		for ; sent < len(all) && sent-got < 64; sent++ {
			all[sent].write(request)
		}
		return got == len(all)
	})
}

// atRest gives the memory of a proxy before it is put to use. Ours has bound its sessions by
// then, and what that has left behind would hide what connections cost: a few of them come and
// go first, after which it gives back what it does not need.
func atRest(ctx context.Context, l *lab, t target) (int64, error) {
	if t.ours {
		few, err := l.openAll(ctx, t, 600)
		if err == nil {
			err = l.rest(ctx, 3*time.Second)
		}
		l.closeAll(few)
		if err == nil {
			err = l.rest(ctx, 12*time.Second)
		}
		if err != nil {
			return 0, err
		}
	}
	return settled(ctx, l, t)
}

// settled waits until the proxy's memory does not shrink any more, and gives it.
func settled(ctx context.Context, l *lab, t target) (int64, error) {
	least, since := t.resident(), l.now()
	err := l.run(ctx, time.Minute, "waiting for memory to settle", func() bool {
		if now := t.resident(); now < least-least/200 {
			least, since = now, l.now()
		}
		return l.now()-since > settleFor
	})
	return least, err
}

const settleFor = 6 * time.Second

func grown(ctx context.Context, l *lab, t target, before int64, n int) (float64, error) {
	after, err := settled(ctx, l, t)
	return float64(after-before) / 1e3 / float64(n), err
}

// stalled measures clients that stop reading while their backend sends messages of a size.
func stalled(size int) func(context.Context, *lab, target, int) (measures, error) {
	return func(ctx context.Context, l *lab, t target, n int) (measures, error) {
		before, err := atRest(ctx, l, t)
		if err != nil {
			return nil, err
		}
		all, err := l.openAll(ctx, t, n)
		defer func() { l.closeAll(all) }()
		if err != nil {
			return nil, err
		}
		pushed := l.pushed
		for _, s := range all {
			s.message = func(*socket, byte, int64, []byte) {}
			s.write(frame(opText, fmt.Appendf(nil, "P=%d;", size), true))
			l.loop.change(s.fd, 0) // it reads no more
		}
		var peak int64
		end := l.now() + 4*time.Second
		if err := l.run(ctx, time.Minute, "stalling", func() bool {
			peak = max(peak, t.resident())
			return l.now() >= end
		}); err != nil {
			return nil, err
		}
		name := "stalled kB"
		if size > 1<<20 {
			name = "stalled kB, 5 MB messages"
		}
		return measures{name: float64(peak-before) / 1e3 / float64(n), name + ": kernel": float64(l.pushed-pushed) / 1e3 / float64(n)}, nil
	}
}

// held9000 measures many sessions at once: that they are held, and what they cost at rest.
func held9000(ctx context.Context, l *lab, t target, n int) (measures, error) {
	all, err := l.openAll(ctx, t, n)
	defer func() { l.closeAll(all) }()
	if err != nil {
		return nil, err
	}
	if err := answerAll(ctx, l, all, 200); err != nil {
		return nil, err
	}
	if err := l.rest(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	used, begin := t.cpu(), l.now()
	if err := l.rest(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	return measures{"sessions held": float64(n), "their CPU, ms per s": micro(t.cpu()-used) / 1e3 / (l.now() - begin).Seconds()}, nil
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func per(v float64, n int) float64 {
	if n == 0 {
		return math.NaN()
	}
	return v / float64(n)
}

// median is of what is known.
func median(values []float64) float64 {
	var known []float64
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return math.NaN()
	}
	slices.Sort(known)
	if n := len(known); n%2 == 0 {
		return (known[n/2-1] + known[n/2]) / 2
	}
	return known[len(known)/2]
}
