package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

func TestGatheredWritesArriveWholeAndInOrder(t *testing.T) {
	near, far := net.Pipe()
	conn, err := gather(func(context.Context, string, string) (net.Conn, error) { return near, nil })(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const writers, each, size = 8, 40, 20_000 // more than may wait at one time
	got := make(chan []byte, 1)
	go func() {
		all := make([]byte, writers*each*size)
		_, _ = io.ReadFull(far, all)
		got <- all
	}()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range each {
				if _, err := conn.Write(bytes.Repeat([]byte{byte(w), byte(n)}, size/2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	all := <-got
	next := [writers]byte{}
	for ; len(all) > 0; all = all[size:] {
		w, n := all[0], all[1]
		if int(w) >= writers || n != next[w] || !bytes.Equal(all[:size], bytes.Repeat([]byte{w, n}, size/2)) {
			t.Fatalf("write %d of writer %d came when %v were due", n, w, next)
		}
		next[w]++
	}
}

func TestAGatheredWriteThatFailsIsToldToTheNext(t *testing.T) {
	near, far := net.Pipe()
	conn, err := gather(func(context.Context, string, string) (net.Conn, error) { return near, nil })(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	for range 1000 {
		if _, err := conn.Write(bytes.Repeat([]byte("x"), maxGathered)); err != nil {
			return
		}
	}
	t.Error("a connection that is closed takes everything")
}
