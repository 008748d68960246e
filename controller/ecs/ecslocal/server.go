// Package ecslocal is an ECS endpoint on loopback whose tasks are local processes. It speaks
// ECS's JSON protocol (RunTask, StopTask, ListTasks, DescribeTasks), and leads its tasks
// through ECS's states with ECS's idempotency, page sizes, stop codes and limits, so that a
// program which starts tasks through the AWS SDK cannot tell it from AWS.
//
// It has ECS's bad days, too. Conditions hold for all calls and tasks: the published token
// buckets, a new task that nobody sees yet, one that stops and is still shown as running,
// RunTask without room (failures[] with status 200, for some or all tasks; in some subnets or
// capacity providers), an answer that is lost after the call was carried out, errors, list
// pages that fail, tasks that die while starting or are interrupted. They are set by
// Config.Script (which changes them over time), by SetConditions, or over HTTP at /_faults, and
// what is chance in them follows their seed. Fail orders what befalls the next calls, one by
// one, and Stop ends a task with a stop code of ECS's own. ConflictException needs no order: a
// clientToken with a changed call gets it.
//
// It must not know what its tasks do. Signatures are not verified, so it must not listen
// beyond loopback.
package ecslocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a running endpoint.
type Server struct {
	cfg         Config // set once in Start, defaults filled in
	log         *slog.Logger
	addresses   *addresses
	scratch     *scratch
	faults      faults
	apiURL      string
	metadataURL string
	api, meta   *http.Server
	serving     sync.WaitGroup // the two servers' loops
	living      sync.WaitGroup // one per task that is not STOPPED

	closing   chan struct{} // closed when Close begins
	hurry     chan struct{} // closed when Close runs out of time: SIGKILL now
	closeOnce sync.Once
	hurryOnce sync.Once

	mu     sync.Mutex // guards the fields below and the tasks' changing fields
	closed bool
	seq    uint64
	tasks  map[string]*task // by id
	order  []*task          // by seq
	tokens map[string]*idempotent
	swept  time.Time

	attempts uint64 // tasks that RunTask was to start
	pages    uint64 // of ListTasks
}

// Start listens and serves until Close.
func Start(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuring the local ECS endpoint: %w", err)
	}
	s := &Server{
		cfg:       cfg,
		log:       cfg.Log,
		addresses: newAddresses(cfg.Network),
		faults: faults{queue: make(map[string][]Fault), calls: make(map[string]int),
			buckets: make(map[string]*bucket), steps: cfg.Script, began: time.Now()},
		closing: make(chan struct{}),
		hurry:   make(chan struct{}),
		tasks:   make(map[string]*task),
		tokens:  make(map[string]*idempotent),
		swept:   time.Now(),
	}
	api, err := listen(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for ECS calls: %w", err)
	}
	meta, err := listen(cfg.MetadataListen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening for task metadata calls: %w", err), api.Close())
	}
	if s.scratch, err = newScratch(); err != nil {
		return nil, errors.Join(err, api.Close(), meta.Close())
	}
	s.apiURL = "http://" + api.Addr().String()
	s.metadataURL = "http://" + meta.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.serveCall)
	mux.Handle(adminPath, s.admin())
	mux.Handle(adminPath+"/", s.admin())
	s.api = s.serve(api, mux)
	s.meta = s.serve(meta, s.metadata())
	return s, nil
}

// listen refuses all but loopback.
func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%s is not a loopback address: calls are not authenticated, so listen on 127.0.0.1", addr), l.Close())
	}
	return l, nil
}

func (s *Server) serve(l net.Listener, h http.Handler) *http.Server {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 32 << 10}
	s.serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("local ECS endpoint stopped serving", "listen", l.Addr().String(), "error", err)
		}
	})
	return server
}

// URL is the endpoint to give to the SDK.
func (s *Server) URL() string { return s.apiURL }

// Cluster is the ARN of the one cluster.
func (s *Server) Cluster() string { return s.arn("cluster/" + s.cfg.Cluster) }

// Pid gives the process that is the task's, while there is one.
func (s *Server) Pid(taskARN string) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.find(taskARN)
	if t == nil || t.pid == 0 {
		return 0, false
	}
	return t.pid, true
}

// Close refuses further calls, stops every task (SIGTERM, then after its stop timeout or when
// ctx ends SIGKILL) and waits for them, so that no process, port or file of theirs is left.
// It may be repeated.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for _, t := range s.order {
		t.requestStop(stopUser, "local ECS endpoint closed")
	}
	s.mu.Unlock()
	s.closeOnce.Do(func() { close(s.closing) })

	ended := make(chan struct{})
	go func() {
		s.living.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		s.hurryOnce.Do(func() { close(s.hurry) })
		// What was killed takes a moment to be gone. Only a Definition's Run can be deaf to it.
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			err = errors.New("closing the local ECS endpoint: a task's function has not returned after it was killed")
		}
	}
	// The metadata endpoint serves the tasks to their end, so it closes after them.
	err = errors.Join(err, shutdown(ctx, s.api), shutdown(ctx, s.meta))
	s.serving.Wait()
	return errors.Join(err, s.scratch.remove())
}

// shutdown lets the last answers out, which takes no time, and cuts who does not read them.
func shutdown(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return server.Close()
	}
	return nil
}

// serveCall answers one call of the API.
func (s *Server) serveCall(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Amzn-Requestid", newID())
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	op, err := operation(r)
	if err != nil {
		answer(w, nil, err)
		return
	}
	// Whole before anything befalls the call: a caller that is gone meanwhile has made it.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		answer(w, nil, &exception{Type: "SerializationException", Message: "reading the request: " + err.Error()})
		return
	}
	fault, conditions := s.faults.next(op, time.Now())
	if fault.Before != nil {
		fault.Before()
	}
	s.hang(r, fault.Wait)
	if fault.refuses() {
		fault.refuse(w)
		return
	}
	result, err := s.call(op, body, fault, conditions)
	if fault.After != nil {
		fault.After()
	}
	s.hang(r, fault.Hang)
	if fault.Cut {
		panic(http.ErrAbortHandler) // the server's way to cut a connection
	}
	if err != nil {
		s.log.Debug("ecs call refused", "op", op, "error", err)
	}
	answer(w, result, err)
}

// hang waits, less if the caller gives up or the endpoint closes.
func (s *Server) hang(r *http.Request, d Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(time.Duration(d))
	defer timer.Stop()
	select {
	case <-r.Context().Done():
	case <-s.closing:
	case <-timer.C:
	}
}

// Conditions gives those in force.
func (s *Server) Conditions() Conditions { return s.faults.now(time.Now()) }

// call carries one call out.
func (s *Server) call(op string, body []byte, fault Fault, c Conditions) (any, error) {
	switch op {
	case "RunTask":
		var in runTaskRequest
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return s.runTask(in, fault, c)
	case "StopTask":
		var in stopTaskRequest
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return s.stopTask(in, c)
	case "ListTasks":
		var in listTasksRequest
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return s.listTasks(in, c)
	case "DescribeTasks":
		var in describeTasksRequest
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return s.describeTasks(in, c)
	default:
		return nil, &exception{Type: "UnknownOperationException", Message: "the local ECS endpoint does not do " + op}
	}
}

// lockFor takes s.mu for a call on the named cluster.
func (s *Server) lockFor(cluster string) error {
	if cluster == "" {
		cluster = "default"
	}
	if cluster != s.cfg.Cluster && cluster != s.Cluster() {
		return &exception{Type: "ClusterNotFoundException", Message: "Cluster not found."}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return &exception{Type: "ServerException", Message: "the local ECS endpoint is closing", status: http.StatusServiceUnavailable}
	}
	return nil
}

func (s *Server) arn(resource string) string {
	return "arn:aws:ecs:" + s.cfg.Region + ":" + s.cfg.Account + ":" + resource
}
