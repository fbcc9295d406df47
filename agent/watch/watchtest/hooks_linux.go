package watchtest

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Hooks says what is attached to the router's ports, one thing a line: qdiscs,
// tc filters, and programs on TCX. It is the same before and after a watch that
// leaves nothing.
func (l *Lab) Hooks() (string, error) {
	var b strings.Builder
	for _, port := range []string{R0, R1, R2} {
		index, err := l.Router.Index(port)
		if err != nil {
			fmt.Fprintf(&b, "%s is not there\n", port)
			continue
		}
		if err := l.Router.Do(func() error { return hooks(&b, port, index) }); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func hooks(b *strings.Builder, port string, index int) error {
	for _, args := range [][]string{{"qdisc", "show", "dev", port}, {"filter", "show", "dev", port, "ingress"}, {"filter", "show", "dev", port, "egress"}} {
		out, err := exec.Command("tc", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tc %s: %w: %s", strings.Join(args, " "), err, out)
		}
		for line := range strings.Lines(string(out)) {
			fmt.Fprintf(b, "%s %s: %s\n", port, args[0], strings.TrimSpace(line))
		}
	}
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
		if errors.Is(err, ebpf.ErrNotSupported) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s on %s: %w", at, port, err)
		}
		for _, p := range found.Programs {
			fmt.Fprintf(b, "%s %s: program %d\n", port, at, p.ID)
		}
	}
	return nil
}
