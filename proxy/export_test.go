package proxy

// By gives the access as the relay passes it on.
func (a Access) By(r *Relay) Access {
	a.relay = r
	return a
}
