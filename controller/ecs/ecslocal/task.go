package ecslocal

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// stopped is the last state.
const stopped = "STOPPED"

// The stop codes that tasks end with here.
const (
	stopUser   = "UserInitiated"
	stopSpot   = "SpotInterruption"
	stopExited = "EssentialContainerExited"
	stopFailed = "TaskFailedToStart"
)

// A task goes through
//
//	PROVISIONING ─▶ PENDING ─▶ ACTIVATING ─▶ RUNNING ─▶ DEACTIVATING ─▶ STOPPING ─▶ DEPROVISIONING ─▶ STOPPED
//
// It has its address from PENDING on and its process from RUNNING to STOPPING. One that is
// stopped before it runs goes from where it is to DEPROVISIONING, and so does one whose process
// ends by itself. DEACTIVATING is passed by if it has no delay.
type task struct {
	// Set once in begin.
	id, arn    string
	metadataID string
	seq        uint64
	family     string
	def        Definition
	group      string
	startedBy  string
	launchType string
	provider   string
	platform   string
	subnet     string
	overrides  taskOverride
	stop       chan struct{} // closed by requestStop

	// Guarded by Server.mu.
	before          *task // as it was when it was first to stop; not led anywhere
	tags            []tag
	status          string
	desired         string
	version         int64
	addr            string
	pid             int
	exitCode        *int
	containerReason string
	stopCode        string
	stoppedReason   string
	at              struct {
		created, connected, pullStarted, pullStopped, started, stopping, executionStopped, stopped time.Time
	}
}

// A runner is a task's process, or what stands in for it.
type runner interface {
	pid() int              // 0: there is no process
	done() <-chan struct{} // closed when it is gone, with all that it started
	exitCode() int         // once done
	terminate()
	kill()
}

// requestStop makes the task want to stop, once. Call with Server.mu held.
func (t *task) requestStop(code, reason string) {
	if t.desired == stopped {
		return
	}
	before := *t
	t.before = &before
	t.desired = stopped
	t.stopCode = code
	t.stoppedReason = reason
	t.at.stopping = time.Now()
	t.version++
	close(t.stop)
}

// live leads the task from PROVISIONING to STOPPED.
func (s *Server) live(t *task) {
	address := s.provision(t)
	if address != nil {
		if r := s.activate(t, address); r != nil {
			s.attend(t, r)
		}
	}
	s.enter(t, "DEPROVISIONING", nil)
	s.pause(s.cfg.Delays.Deprovisioning, nil)
	if address != nil {
		address.release()
	}
	s.enter(t, stopped, func() { t.at.stopped = time.Now() })
}

// provision gets the task its address, or nil if it is not to start.
func (s *Server) provision(t *task) *lease {
	if !s.pause(s.cfg.Delays.Provisioning, t.stop) {
		return nil
	}
	address, err := s.addresses.take(t.def.Port)
	if err != nil {
		s.failStart(t, "ResourceInitializationError: "+err.Error())
		return nil
	}
	s.enter(t, "PENDING", func() {
		t.addr = address.addr.String()
		t.at.connected = time.Now()
		t.at.pullStarted = t.at.connected
	})
	return address
}

// activate starts what the task runs, or gives nil if it is not to start.
func (s *Server) activate(t *task, address *lease) runner {
	if !s.pause(s.cfg.Delays.Pending, t.stop) {
		return nil
	}
	s.enter(t, "ACTIVATING", func() { t.at.pullStopped = time.Now() })
	if !s.pause(s.cfg.Delays.Activating, t.stop) {
		return nil
	}
	conditions := s.Conditions()
	if conditions.draw("starting", t.seq) < conditions.DieStarting {
		s.failStart(t, "CannotPullContainerError: the registry did not answer")
		return nil
	}
	r, err := s.start(t, address.addr.String())
	if err != nil {
		s.failStart(t, "CannotStartContainerError: "+err.Error())
		return nil
	}
	s.enter(t, "RUNNING", func() {
		t.at.started = time.Now()
		t.pid = r.pid()
	})
	return r
}

// attend waits for the end of what runs, and brings it about when the task is to stop.
func (s *Server) attend(t *task, r runner) {
	interrupted, spare := s.interruption(t)
	defer spare()
	select {
	case <-interrupted:
		s.mu.Lock()
		t.requestStop(stopSpot, "Your Spot Task was interrupted.")
		s.mu.Unlock()
	case <-r.done():
	case <-t.stop:
	}
	if s.toStop(t) {
		if s.cfg.Delays.Deactivating > 0 {
			s.enter(t, "DEACTIVATING", nil)
			s.pause(s.cfg.Delays.Deactivating, nil)
		}
		s.enter(t, "STOPPING", nil)
		r.terminate()
		patience := time.NewTimer(t.def.StopTimeout)
		select {
		case <-r.done():
		case <-patience.C:
			r.kill()
		case <-s.hurry:
			r.kill()
		}
		patience.Stop()
		<-r.done()
	}
	code := r.exitCode()
	s.mu.Lock()
	defer s.mu.Unlock()
	t.requestStop(stopExited, "Essential container in task exited")
	t.exitCode = &code
	t.pid = 0
	t.at.executionStopped = time.Now()
	t.version++
}

// toStop tells whether the task is to stop.
func (s *Server) toStop(t *task) bool {
	select {
	case <-t.stop:
		return true
	default:
		return false
	}
}

// interruption says when the task is interrupted; a nil channel: it is not.
func (s *Server) interruption(t *task) (at <-chan time.Time, spare func()) {
	c := s.Conditions()
	if c.draw("interrupted", t.seq) >= c.Interrupted {
		return nil, func() {}
	}
	limit := c.InterruptedIn
	if limit == 0 {
		limit = Duration(time.Minute)
	}
	timer := time.NewTimer(c.within(limit, "interruption", t.seq))
	return timer.C, func() { timer.Stop() }
}

// failStart ends a task that could not start.
func (s *Server) failStart(t *task, reason string) {
	s.log.Warn("local task could not start", "task", t.arn, "because", reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.requestStop(stopFailed, reason)
	t.containerReason = reason
	t.version++
}

// enter moves the task to the state, together with what also changes.
func (s *Server) enter(t *task, status string, also func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.status = status
	t.version++
	if also != nil {
		also()
	}
	s.log.Debug("local task changed state", "task", t.arn, "status", status)
}

// pause waits, unless the task is to stop (then it gives false) or the endpoint closes.
func (s *Server) pause(d time.Duration, stop <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-stop:
	case <-s.closing:
	case <-timer.C:
	}
	select {
	case <-stop: // wins, whatever else has happened too
		return false
	default:
		return true
	}
}

// start starts what the definition says.
func (s *Server) start(t *task, addr string) (runner, error) {
	env := s.environment(t)
	if t.def.Run != nil {
		return startFunction(t.def.Run, TaskEnv{ARN: t.arn, Addr: addr, Port: t.def.Port, Env: env}), nil
	}
	return startProcess(processSpec{
		command: t.def.Command, env: env, stdout: t.def.Stdout, stderr: t.def.Stderr, scratch: s.scratch.dir,
	})
}

// environment is all that the task gets to see of the world. ECS's own variables win over
// the overrides, and they over the definition.
func (s *Server) environment(t *task) map[string]string {
	env := map[string]string{}
	for _, name := range append([]string{"PATH", "HOME"}, s.cfg.InheritEnv...) {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	for _, kv := range t.def.Env {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	for _, o := range t.overrides.ContainerOverrides {
		for _, kv := range o.Environment {
			env[kv.Name] = kv.Value
		}
	}
	env["AWS_REGION"] = s.cfg.Region
	env[metadataVariable] = s.metadataURL + metadataPath + t.metadataID
	return env
}

// definition is the part of the definition's ARN that is its own.
func (t *task) definition() string {
	return "task-definition/" + t.family + ":" + strconv.Itoa(t.def.Revision)
}

// containerStatus is the state of the task's one container. Call with Server.mu held.
func (t *task) containerStatus() string {
	switch t.status {
	case "RUNNING", "DEACTIVATING", "STOPPING":
		return "RUNNING"
	case "DEPROVISIONING", stopped:
		return stopped
	default:
		return "PENDING"
	}
}

// newID draws an id of 32 hexadecimal digits.
func newID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(fmt.Sprintf("ecslocal: the system gives no randomness: %v", err))
	}
	return hex.EncodeToString(id[:])
}
