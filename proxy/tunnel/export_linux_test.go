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
	time.Sleep(pause)
	return s, s.connected(time.Now().Add(limit))
}
