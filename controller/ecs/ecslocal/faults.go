package ecslocal

import (
	"net/http"
	"sync"
	"time"
)

// A Fault is what befalls a call. The fields are alternatives.
type Fault struct {
	// Exception is the API's name for the error that the call gets: ThrottlingException …
	// Nothing is done.
	Exception string
	Message   string // of the exception
	Status    int    // of the answer; default 400 with an Exception. Alone (500, 503): no exception, no JSON

	// FailureReason makes RunTask start nothing and answer 200 with failures[].
	FailureReason string
	FailureDetail string

	// Hang carries the call out and then withholds the answer for that long, or until the
	// caller gives up: the call has succeeded and its caller does not know.
	Hang time.Duration
}

// refuses tells whether the fault takes the place of the call.
func (f *Fault) refuses() bool { return f.Exception != "" || f.Status != 0 }

// refuse answers in the place of the call.
func (f *Fault) refuse(w http.ResponseWriter) {
	if f.Exception != "" {
		answer(w, nil, &exception{Type: f.Exception, Message: f.Message, status: f.Status})
		return
	}
	http.Error(w, http.StatusText(f.Status), f.Status)
}

// faults decides what befalls the calls, and counts them.
type faults struct {
	mu    sync.Mutex // guards the fields below
	queue map[string][]Fault
	calls map[string]int
}

// next gives the fault of this call of the operation; the zero Fault is none.
func (f *faults) next(op string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	queue := f.queue[op]
	if len(queue) == 0 {
		return Fault{}
	}
	f.queue[op] = queue[1:]
	return queue[0]
}

// Fail lets the next n calls of the operation (RunTask, ListTasks …) meet the fault, after
// those that were ordered before.
func (s *Server) Fail(op string, n int, fault Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	for range n {
		s.faults.queue[op] = append(s.faults.queue[op], fault)
	}
}

// Calls gives how many calls of the operation have arrived, faulty ones included.
func (s *Server) Calls(op string) int {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return s.faults.calls[op]
}
