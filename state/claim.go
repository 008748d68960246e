package state

import (
	"fmt"
	"net/netip"
)

// Within reads where a container says that it listens, for one whose address nobody else can
// tell: it must be in one of the networks. A container of the original's kind may call its
// own machine localhost.
func (c Claim) Within(networks []netip.Prefix) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(c.IP)
	switch {
	case c.IP == "localhost":
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case err != nil || addr.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("its address %q is none: %w", c.IP, ErrInvalid)
	}
	addr = addr.Unmap()
	if c.Port < 1 || c.Port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("its port %d is none: %w", c.Port, ErrInvalid)
	}
	for _, network := range networks {
		if network.Contains(addr) {
			return netip.AddrPortFrom(addr, uint16(c.Port)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("its address %s is in no network of containers: %w", addr, ErrForbidden)
}
