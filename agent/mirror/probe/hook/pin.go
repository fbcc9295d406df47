package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// pins is a folder of a bpffs. What is pinned there outlives the process; the
// next one takes it over, and no packet passes unseen between them.
type pins struct {
	dir string
	why error // why nothing can be pinned
}

// openPins makes the folder. The empty name is no pins.
func openPins(dir string) *pins {
	if dir == "" {
		return nil
	}
	p := &pins{dir: dir}
	var fs unix.Statfs_t
	if p.why = os.MkdirAll(dir, 0o700); p.why != nil {
		return p
	}
	if err := unix.Statfs(dir, &fs); err != nil {
		p.why = fmt.Errorf("%s: %w", dir, err)
	} else if fs.Type != unix.BPF_FS_MAGIC {
		p.why = fmt.Errorf("%s is on no bpffs: mount one (mount -t bpf bpf /sys/fs/bpf)", dir)
	}
	return p
}

func (p *pins) usable() bool { return p != nil && p.why == nil }

const linkPrefix = "link-"

func (p *pins) path(port uint32, s side) string {
	return filepath.Join(p.dir, fmt.Sprintf("%s%d-%s", linkPrefix, port, s))
}

// pin makes a link outlive the process. A link that cannot be pinned still works.
func (p *pins) pin(h *tcxHold) {
	if !p.usable() {
		return
	}
	path := p.path(h.port, h.side)
	_ = os.Remove(path) // of a link that could not be taken over
	if err := h.link.Pin(path); err != nil {
		p.why = fmt.Errorf("pin %s: %w", path, err)
		return
	}
	h.pinned = path
}

// adopt takes over the link that an earlier process pinned for one side of a
// port, and gives it our program. nil: there is none that can be used.
func (p *pins) adopt(port uint32, s side, program *ebpf.Program) *tcxHold {
	if !p.usable() {
		return nil
	}
	path := p.path(port, s)
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil
	}
	h, err := holdTCX(l, port, s)
	if err != nil {
		return nil
	}
	if here, err := h.look(); err == nil && here.ours && l.Update(program) == nil {
		if h, err = holdTCX(l, port, s); err == nil {
			h.pinned = path
			return h
		}
	}
	_ = h.release() // of a port that is gone, or whose number another one has now
	return nil
}

// keep pins a link again whose pin someone has taken away.
func (p *pins) keep(h *tcxHold) (removed bool) {
	if h.pinned == "" {
		return false
	}
	if _, err := os.Lstat(h.pinned); !errors.Is(err, os.ErrNotExist) {
		return false
	}
	h.pinned = ""
	if again, err := link.NewFromID(h.id); err == nil { // a link object pins only once
		_ = h.link.Close()
		h.link = again
		p.pin(h)
	}
	return true
}

// sweep removes the links of ports that are not hooked any more.
func (p *pins) sweep(hooked func(port uint32) bool) {
	if !p.usable() {
		return
	}
	names, _ := filepath.Glob(filepath.Join(p.dir, linkPrefix+"*"))
	for _, path := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), linkPrefix), "-")
		port, err := strconv.ParseUint(number, 10, 32)
		if err != nil || hooked(uint32(port)) {
			continue
		}
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			_ = l.Unpin()
			_ = l.Detach()
			_ = l.Close()
		}
	}
}
