package main

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// waitingRoom answers on a listener while the store cannot be reached for the first time: the
// process is alive, so that nothing restarts it, and not ready, so that nothing is sent to it.
// It is left before the service takes the listener over.
type waitingRoom struct {
	listener *net.TCPListener
	server   *http.Server
	serving  sync.WaitGroup
}

// lent is a listener that its server may stop accepting on, but not close.
type lent struct{ *net.TCPListener }

// Close implements net.Listener.
func (l lent) Close() error { return l.SetDeadline(time.Unix(1, 0)) }

func openWaitingRoom(l *net.TCPListener) *waitingRoom {
	w := &waitingRoom{listener: l, server: &http.Server{Handler: http.HandlerFunc(answerWaiting), ReadHeaderTimeout: 5 * time.Second}}
	w.serving.Go(func() { _ = w.server.Serve(lent{l}) })
	return w
}

// leave gives the listener back, accepting again.
func (w *waitingRoom) leave() error {
	_ = w.server.Close()
	w.serving.Wait()
	return w.listener.SetDeadline(time.Time{})
}

func answerWaiting(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close")
	if r.URL.Path == "/health" {
		_, _ = io.WriteString(w, `{"status":"healthy","containers":0,"clients":0,"store":"unreachable"}`+"\n")
		return
	}
	w.Header().Set("Retry-After", "2")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"error":"unavailable","code":"unavailable","message":"the store cannot be reached yet","hint":"try again in a moment; an operator should check REDIS_ENDPOINT","retryAfter":2}`+"\n")
}
