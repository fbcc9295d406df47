package socket

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// address reads "0100007F:1F90" and its like for IPv6: words of four bytes, each
// printed as a number of the machine, then the port.
func address(text string) (netip.AddrPort, error) {
	digits, port, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(digits)
	if err != nil || len(words) != 4 && len(words) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q", text)
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %q", text)
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	at, _ := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(at, uint16(number)), nil
}
