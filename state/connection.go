package state

import "time"

// Connection is one client's WebSocket to its browser, as the replica knows it that relays it.
type Connection struct {
	Opened       time.Time
	Closed       time.Time // zero: it is open
	LastActivity time.Time // when anything but pings and pongs last passed

	BytesToBrowser, BytesToClient       uint64
	MessagesToBrowser, MessagesToClient uint64

	ClosedBy string // client, backend, drain, stalled or fault; empty: it is open
	Code     int    // of the close frame that came first; 0: there was none
	Reason   string // in that frame
}
