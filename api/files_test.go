package api

import (
	"net"
	"net/http"
	"testing"
)

func TestTheLastFilesAreKept(t *testing.T) {
	shed, joined := 0, 3
	g := &fileGuard{max: 10, busy: func() int { return joined }, shed: func() { shed++ }}
	open := func() (cut bool) {
		near, far := net.Pipe()
		t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		g.see(near, http.StateNew)
		g.see(near, http.StateActive)
		go func() { _, _ = far.Write([]byte("x")) }()
		_, err := near.Read(make([]byte, 1))
		return err != nil
	}
	for i := range 4 {
		if open() {
			t.Errorf("connection %d of 4 was cut", i+1)
		}
	}
	if !open() || shed != 1 {
		t.Errorf("the eleventh file was given away; %d shed", shed)
	}
	g.see(nil, http.StateClosed) // that one
	g.see(nil, http.StateHijacked)
	if open() {
		t.Error("a connection that the relay has taken over was counted twice")
	}
	joined = 4
	if !open() {
		t.Error("a joined client takes two files")
	}
}
