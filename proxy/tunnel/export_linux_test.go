package tunnel

import (
	"net/netip"
	"time"
)

// ConnectAfterForTest is Connect, which does something else for a while before it waits.
func ConnectAfterForTest(to netip.AddrPort, pause, limit time.Duration) (*Socket, error) {
	s, err := begin(to, 1<<20)
	if err != nil {
		return nil, err
	}
	<-time.After(pause)
	return s, s.connected(time.Now().Add(limit))
}

// BlockedForTest tells whether the client takes nothing at the moment.
func (t *Tunnel) BlockedForTest() bool { return t.toClient.sink.blocked.Load() }

// TakenForTest is how many bytes the client has taken in all.
func (t *Tunnel) TakenForTest() uint64 { return acknowledged(t.toClient.dst) }

// ClosingForTest tells whether the tunnel has been closed from here.
func (t *Tunnel) ClosingForTest() bool { return t.isClosing.Load() }

// LookForTest has the keeper look once.
func (k *Keeper) LookForTest() { k.look() }
