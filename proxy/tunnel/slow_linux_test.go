package tunnel_test

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// slowClient is a tunnel in the midst of one long message to a client whose kernel takes no
// more of it. Nobody but the test has the keeper look: a look is a second.
func slowClient(t *testing.T) (e *ends, k *tunnel.Keeper) {
	t.Helper()
	k = tunnel.NewKeeper(tunnel.KeeperConfig{Tick: time.Second, Ping: time.Hour, Stall: 10 * time.Second})
	e = start(t, tunnel.Config{Keeper: k}, nil, nil)
	go flood(e.backend, 1<<30)
	until(t, "the client takes nothing more", e.tunnel.BlockedForTest)
	return e, k
}

// flood writes one message of size bytes, made as it goes: a large one is not made in seconds where
// the machine is busy. It ends with the connection.
func flood(to io.Writer, size uint64) {
	if _, err := to.Write(binary.BigEndian.AppendUint64([]byte{0x82, 127}, size)); err != nil {
		return
	}
	for piece := make([]byte, 64<<10); size > 0; {
		n, err := to.Write(piece[:min(uint64(len(piece)), size)])
		if err != nil {
			return
		}
		size -= uint64(n)
	}
}

// A client that reads slowly, but reads, is not stalled, however long one message takes it.
func TestASlowReaderIsNotAStalledOne(t *testing.T) {
	e, k := slowClient(t)
	for range 60 {
		taken := e.tunnel.TakenForTest()
		// The kernel tells the sender of what was read once it is worth it.
		for e.tunnel.TakenForTest() == taken {
			if _, err := io.CopyN(io.Discard, e.client, 16<<10); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "the client takes nothing more", e.tunnel.BlockedForTest)
		k.LookForTest()
	}
	if e.tunnel.ClosingForTest() {
		t.Error("a client that reads was taken for a stalled one")
	}
	e.tunnel.Close(0, "")
	_, _ = e.client.Close(), e.backend.Close()
	if r := e.wait(t); r.Stalled {
		t.Error("a client that reads was taken for a stalled one")
	}
}

// One that stops is, also when it has said goodbye, or was told so, and the other side goes on.
func TestAReaderThatStopsIsStalled(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, client net.Conn, e *ends){
		"amid a message": func(*testing.T, net.Conn, *ends) {},
		"after its close frame": func(t *testing.T, client net.Conn, e *ends) {
			write(t, client, frame(8, true, true, []byte{0x03, 0xe8}))
			expect(t, e.backend, frame(8, true, true, []byte{0x03, 0xe8}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, k := slowClient(t)
			before(t, e.client, e)
			until(t, "it is closed", func() bool {
				k.LookForTest()
				return e.tunnel.ClosingForTest()
			})
			_, _ = e.client.Close(), e.backend.Close()
			if r := e.wait(t); !r.Stalled {
				t.Errorf("it ended with %+v", r)
			}
		})
	}
}
