package api

import "github.com/wallcrawler/wallcrawler/state"

// clientJSON is one client's connection to its browser.
type clientJSON struct {
	Replica           string `json:"replica"` // that it goes through
	OpenedAt          string `json:"openedAt"`
	ClosedAt          string `json:"closedAt,omitempty"`
	LastActivity      string `json:"lastActivity"`
	BytesToBrowser    uint64 `json:"bytesToBrowser"`
	BytesToClient     uint64 `json:"bytesToClient"`
	MessagesToBrowser uint64 `json:"messagesToBrowser"`
	MessagesToClient  uint64 `json:"messagesToClient"`
	ClosedBy          string `json:"closedBy,omitempty"`
	CloseCode         int    `json:"closeCode,omitempty"`
	CloseReason       string `json:"closeReason,omitempty"`
}

// clients tells of a session's connections through this replica. Others know of theirs.
func (s *Server) clients(session string) []clientJSON {
	var out []clientJSON
	for _, c := range s.relay.Connections(session) {
		one := clientOf(c)
		one.Replica = s.replica
		out = append(out, one)
	}
	return out
}

func clientOf(c state.Connection) clientJSON {
	return clientJSON{
		OpenedAt: stamp(c.Opened), ClosedAt: stamp(c.Closed), LastActivity: stamp(c.LastActivity),
		BytesToBrowser: c.BytesToBrowser, BytesToClient: c.BytesToClient,
		MessagesToBrowser: c.MessagesToBrowser, MessagesToClient: c.MessagesToClient,
		ClosedBy: c.ClosedBy, CloseCode: c.Code, CloseReason: c.Reason,
	}
}
