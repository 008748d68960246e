//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// What the original dialect's clients ask, and what they get.
var (
	envelopeCommand = []byte(`{"id":1,"method":"Runtime.evaluate","params":{"expression":"document.title"}}`)
	envelopeAnswer  = []byte(`{"id":1,"result":{"result":{"type":"string","value":"A title of a page"}}}`)
	envelopeShot    = []byte(`{"id":2,"method":"Page.captureScreenshot"}`)
)

const shotSize = 40 << 20

// v1Lab is a container of the original dialect in the lab's loop, as lean as can be, so that
// it is not what is measured.
type v1Lab struct {
	*lab

	mu       sync.Mutex // guards sessions
	sessions map[string]bool
	created  atomic.Int64
	shot     []byte
	trouble  atomic.Value // error
}

func newV1Lab(l *lab) *v1Lab {
	return &v1Lab{lab: l, sessions: map[string]bool{}, shot: bytes.Repeat([]byte("iVBORw0K"), shotSize/8)}
}

func (v *v1Lab) handler(id string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		fmt.Fprintf(w, `{"status":"healthy","sessions":%d,"maxSessions":%d,"containerId":%q}`, len(v.sessions), slotsEach, id)
	})
	mux.HandleFunc("GET /internal/ws", func(w http.ResponseWriter, r *http.Request) {
		v.adopt(w, r, &socket{message: v.heed, pongs: true})
	})
	return mux
}

// run is a task with that container in it.
func (v *v1Lab) run(ctx context.Context, task ecslocal.TaskEnv) int {
	err := func() error {
		listener, err := net.Listen("tcp", net.JoinHostPort(task.Addr, strconv.Itoa(task.Port)))
		if err != nil {
			return err
		}
		server := &http.Server{Handler: v.handler(task.Env["CONTAINER_ID"]), ReadHeaderTimeout: 5 * time.Second}
		go func() { _ = server.Serve(listener) }()
		defer func() { _ = server.Close() }()
		body, err := json.Marshal(map[string]any{"containerId": task.Env["CONTAINER_ID"], "ip": task.Addr, "port": task.Port, "taskArn": "local"})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, task.Env["PROXY_ENDPOINT"]+"/internal/register", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Container-Token", task.Env["CONTAINER_TOKEN"])
		resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the registration was answered with %s", resp.Status)
		}
		<-ctx.Done()
		return nil
	}()
	if err != nil {
		v.trouble.Store(err)
		return 1
	}
	return 0
}

// heed answers what comes over the link. The beginning of a message is all that it looks at.
func (v *v1Lab) heed(s *socket, op byte, _ int64, head []byte) {
	if op == opClose {
		s.drop()
		return
	}
	kind, session, data := readEnvelope(head)
	switch kind {
	case "CREATE_SESSION":
		v.mu.Lock()
		v.sessions[session] = true
		v.mu.Unlock()
		v.created.Add(1)
		s.write(frame(opText, fmt.Appendf(nil, `{"type":"SESSION_READY","sessionId":"%s"}`, session), false))
	case "DESTROY_SESSION":
		v.mu.Lock()
		delete(v.sessions, session)
		v.mu.Unlock()
	case "CLIENT_MESSAGE":
		v.mu.Lock()
		held := v.sessions[session]
		v.mu.Unlock()
		id, _, _ := bytes.Cut(bytes.TrimPrefix(data, []byte(`{"id":`)), []byte(","))
		out := fmt.Appendf(nil, `{"type":"CDP_RESPONSE","sessionId":"%s","data":`, session)
		switch {
		case !held:
			out = fmt.Appendf(out, `{"id":%s,"error":{"message":"Session not found"}}`, id)
		case string(id) == "2":
			out = append(append(append(out, `{"id":2,"result":{"data":"`...), v.shot...), `"}}`...)
		default:
			out = append(out, envelopeAnswer...)
		}
		s.write(frame(opText, append(out, '}'), false))
	}
}

// readEnvelope takes a message's beginning apart: every sender here writes type and session
// first.
func readEnvelope(head []byte) (kind, session string, data []byte) {
	_, rest, _ := bytes.Cut(head, []byte(`"type":"`))
	word, rest, _ := bytes.Cut(rest, []byte(`"`))
	_, rest, _ = bytes.Cut(rest, []byte(`"sessionId":"`))
	id, rest, _ := bytes.Cut(rest, []byte(`"`))
	_, data, _ = bytes.Cut(rest, []byte(`"data":`))
	return string(word), string(id), data
}

// startOurs starts the product with sessions that are ready.
func (v *v1Lab) startOurs(ctx context.Context, b *bench, sessions int) (target, error) {
	const secret = "bench secret of at least sixteen bytes"
	type started struct {
		s   *service
		err error
	}
	done := make(chan started, 1)
	containers := (sessions + slotsEach - 1) / slotsEach
	v.created.Store(0)
	go func() {
		s, err := b.startService(ctx, stage.Options{Containers: containers, Slots: slotsEach, Notifications: true, Secret: secret,
			Core: proxyCore, Run: v.run, Env: []string{"POOL_PROTOCOL=v1", "DISCONNECT_GRACE=1h", "LOST_GRACE=1h"}})
		done <- started{s, err}
	}()
	var got started
	waiting := true
	err := v.lab.run(ctx, 2*time.Minute, "starting the service", func() bool {
		select {
		case got = <-done:
			waiting = false
		default:
		}
		return !waiting
	})
	if waiting {
		got = <-done
	}
	if err = errors.Join(err, got.err); err != nil {
		if trouble, ok := v.trouble.Load().(error); ok {
			err = errors.Join(err, trouble)
		}
		return target{}, err
	}
	s := got.s
	t := target{name: ourName, pid: s.Pid(), close: s.Close, addr: s.Addr}
	tokens := make([]string, sessions)
	name := func(i int) string { return "ses_" + strconv.Itoa(i) }
	for i := range sessions {
		user := fmt.Sprintf("user_%d", i%1000)
		tokens[i] = mint(secret, name(i), user)
		if err := s.Write(ctx, name(i), user, "pending"); err != nil {
			s.Close()
			return target{}, err
		}
	}
	err = v.lab.run(ctx, 5*time.Minute, "creating sessions", func() bool { return int(v.created.Load()) >= sessions })
	if err == nil {
		err = v.rest(ctx, 5*time.Second) // for what is still to be written
	}
	if err != nil {
		s.Close()
		return target{}, err
	}
	t.request = func(id int) (string, string) { return "/sessions/" + name(id) + "/ws", tokens[id] }
	return t, nil
}

// startNode starts the peer, with a container of its own.
func (v *v1Lab) startNode(ctx context.Context, b *bench) (target, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return target{}, err
	}
	server := &http.Server{Handler: v.handler("cnt_peer"), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	addr, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return target{}, err
	}
	t, err := b.startPeer(ctx, peer{"node-ws", "node", func(dir string, listen, backend netip.AddrPort) ([]string, error) {
		script := filepath.Join(dir, "v1-relay.cjs")
		return []string{"node", script, filepath.Join(b.clients, "node_modules", "ws"), listen.Addr().String(),
			strconv.Itoa(int(listen.Port())), backend.String()}, os.WriteFile(script, nodeEnvelopes, 0o600)
	}}, addr)
	stop := t.close
	t.close = func() {
		if stop != nil {
			stop()
		}
		_ = server.Close()
	}
	t.request = func(id int) (string, string) { return "/sessions/peer_" + strconv.Itoa(id) + "/ws", "bench" }
	return t, err
}

// trips has each of n clients send a command whenever its answer has come.
func (v *v1Lab) trips(ctx context.Context, t target, n int) (measures, error) {
	all, err := v.openAll(ctx, t, n)
	defer func() { v.closeAll(all) }()
	if err != nil {
		return nil, err
	}
	request := frame(opText, envelopeCommand, true)
	count := 0
	var took sample
	sent := make([]time.Duration, n)
	for _, s := range all {
		s.message = func(s *socket, _ byte, length int64, head []byte) {
			switch {
			case bytes.HasPrefix(head, []byte(`{"type":"session_ready"`)):
				return
			case length != int64(len(envelopeAnswer)) || !bytes.HasPrefix(head, envelopeAnswer[:40]):
				v.fail(fmt.Errorf("%w: %d bytes beginning %q", errDamaged, length, head))
			}
			count++
			took = append(took, v.now()-sent[s.id])
			sent[s.id] = v.now()
			s.write(request)
		}
		sent[s.id] = v.now()
		s.write(request)
	}
	if err := v.rest(ctx, warmFor); err != nil {
		return nil, err
	}
	done, used := count, t.cpu()
	took = took[:0]
	if err := v.rest(ctx, measureFor); err != nil {
		return nil, err
	}
	return measures{"cpu": per(micro(t.cpu()-used), count-done), "p50": micro(took.p50())}, nil
}

// screenshots passes answers of 40 MiB to one client, and gives the growth of memory at its
// highest, in MB.
func (v *v1Lab) screenshots(ctx context.Context, t target, n int) (float64, error) {
	all, err := v.openAll(ctx, t, 1)
	defer func() { v.closeAll(all) }()
	if err != nil {
		return 0, err
	}
	got := 0
	all[0].message = func(_ *socket, _ byte, length int64, _ []byte) {
		if length > shotSize {
			got++
		}
	}
	before := t.resident()
	peak := before
	for i := range n {
		all[0].write(frame(opText, envelopeShot, true))
		if err := v.lab.run(ctx, time.Minute, "passing a screenshot", func() bool { peak = max(peak, t.resident()); return got > i }); err != nil {
			return 0, err
		}
	}
	return float64(peak-before) / 1e6, nil
}

// quiet gives the memory of each client that is connected and says nothing, in kB.
func (v *v1Lab) quiet(ctx context.Context, t target, few, many int) (float64, error) {
	first, err := v.openAll(ctx, t, few)
	defer func() { v.closeAll(first) }()
	if err != nil {
		return 0, err
	}
	before, err := settled(ctx, v.lab, t)
	if err != nil {
		return 0, err
	}
	more := target{name: t.name, addr: t.addr, pid: t.pid, request: func(id int) (string, string) { return t.request(few + id) }}
	rest, err := v.openAll(ctx, more, many-few)
	defer func() { v.closeAll(rest) }()
	if err != nil {
		return 0, err
	}
	return grown(ctx, v.lab, t, before, many-few)
}

// envelopes measures the original dialect beside a relay that does the same in Node.
func envelopes(ctx context.Context, b *bench) error {
	l, err := startLab()
	if err != nil {
		return err
	}
	defer l.close()
	v := newV1Lab(l)
	ours, err := v.startOurs(ctx, b, slotsEach)
	if err != nil {
		return err
	}
	defer func() { ours.close() }()
	node, err := v.startNode(ctx, b)
	if err != nil {
		return err
	}
	defer func() { node.close() }()

	sizes := []int{1, 10, 100, 1000}
	results := map[string]map[int]map[string][]float64{ourName: {}, node.name: {}}
	for range b.rounds {
		for _, n := range sizes {
			order := []target{ours, node}
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, t := range order {
				m, err := v.trips(ctx, t, n)
				if err != nil {
					return fmt.Errorf("%s with %d sessions: %w", t.name, n, err)
				}
				if results[t.name][n] == nil {
					results[t.name][n] = map[string][]float64{}
				}
				for name, value := range m {
					results[t.name][n][name] = append(results[t.name][n][name], value)
				}
			}
		}
	}
	b.title("v1: one container, %d rounds, answers of %d bytes", b.rounds, len(envelopeAnswer))
	fmt.Fprintln(b.out, "| sessions | CPU µs per round trip | node-ws | ratio (≤ 0.60) | p50 µs | node-ws | ratio (one session ≤ 1.00) |")
	fmt.Fprintln(b.out, "|---|---|---|---|---|---|---|")
	for _, n := range sizes {
		o, p := results[ourName][n], results[node.name][n]
		fmt.Fprintf(b.out, "| %d | %.1f | %.1f | %.2f | %.0f | %.0f | %.2f |\n", n, median(o["cpu"]), median(p["cpu"]), median(ratios(o["cpu"], p["cpu"])),
			median(o["p50"]), median(p["p50"]), median(ratios(o["p50"], p["p50"])))
	}
	fmt.Fprintf(b.out, "\nCPU at 1,000 sessions is %.2f times that at 10 (node-ws: %.2f).\n",
		median(ratios(results[ourName][1000]["cpu"], results[ourName][10]["cpu"])), median(ratios(results[node.name][1000]["cpu"], results[node.name][10]["cpu"])))

	fmt.Fprintln(b.out, "\n| what | ours | node-ws |\n|---|---|---|")
	row := []string{}
	for _, t := range []target{ours, node} {
		grew, err := v.screenshots(ctx, t, 5)
		if err != nil {
			return err
		}
		row = append(row, fmt.Sprintf("%.0f MB", grew))
	}
	fmt.Fprintf(b.out, "| growth of memory with 5 answers of 40 MiB, at its highest | %s | %s |\n", row[0], row[1])

	// Memory is that of processes which have served nobody yet.
	ours.close()
	ours.close = func() {}
	node.close()
	if node, err = v.startNode(ctx, b); err != nil {
		return err
	}
	many := max(200, b.count(5000))
	fresh, err := v.startOurs(ctx, b, many)
	if err != nil {
		return err
	}
	defer fresh.close()
	idle, err := v.quiet(ctx, fresh, 100, many)
	if err != nil {
		return err
	}
	nodeIdle, err := v.quiet(ctx, node, 100, many)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "| memory per quiet client, growth from 100 to %d (≤ 20 kB) | %.1f kB | %.1f kB |\n", many, idle, nodeIdle)
	return nil
}

// ratios are taken within a round.
func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] / b[i]
	}
	return out
}
