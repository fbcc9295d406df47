package vm

import (
	"fmt"
	"net"
	"path/filepath"
)

// Cable is plugged into one of the router's ports. What it carries are whole
// Ethernet frames without their check sequence, each a datagram: no device and
// no right of the host is needed.
type Cable struct {
	port   int    // n of the router's ethN
	router string // socket of QEMU
	own    string // socket of this process
	conn   *net.UnixConn
}

// newCable opens this process's end, before QEMU opens the router's.
func newCable(dir string, port int) (*Cable, error) {
	c := &Cable{
		port:   port,
		router: filepath.Join(dir, fmt.Sprintf("router%d", port)),
		own:    filepath.Join(dir, fmt.Sprintf("cable%d", port)),
	}
	var err error
	c.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.own, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cable to eth%d: %w", port, err)
	}
	return c, nil
}

// argv returns the arguments that give QEMU the port.
func (c *Cable) argv() []string {
	id := fmt.Sprintf("p%d", c.port)
	return []string{
		"-netdev", fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", id, c.router, c.own),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%v,romfile=", id, portMAC(c.port)),
	}
}

// portMAC is the address of the router's port ethN.
func portMAC(n int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, byte(n), 1} }

// Send sends a frame to the router's port.
func (c *Cable) Send(frame []byte) error {
	_, err := c.conn.WriteToUnix(frame, &net.UnixAddr{Name: c.router, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cable to eth%d: %w", c.port, err)
	}
	return nil
}

// Receive waits for a frame from the router's port. It fails when the router
// has been stopped.
func (c *Cable) Receive(frame []byte) (int, error) {
	n, _, err := c.conn.ReadFromUnix(frame)
	if err != nil {
		return 0, fmt.Errorf("cable to eth%d: %w", c.port, err)
	}
	return n, nil
}

func (c *Cable) close() { c.conn.Close() }
