package program

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// copying are the kernel's functions behind helpers that copy or divert packets
// or hand data to user space, under the names that they have after the verifier
// (net/core/filter.c, kernel/bpf/devmap.c, net/xdp/xskmap.c, kernel/trace/bpf_trace.c,
// kernel/bpf/ringbuf.c).
var copying = []string{
	"bpf_clone_redirect", "bpf_redirect", "bpf_redirect_peer", "bpf_redirect_neigh",
	"bpf_xdp_redirect", "bpf_xdp_redirect_map", "dev_map_redirect", "dev_hash_map_redirect", "xsk_map_redirect",
	"bpf_sk_redirect_map", "bpf_sk_redirect_hash", "bpf_msg_redirect_map", "bpf_msg_redirect_hash",
	"bpf_skb_event_output", "bpf_xdp_event_output", "bpf_event_output", "bpf_event_output_data",
	"bpf_perf_event_output", "bpf_perf_event_output_tp", "bpf_perf_event_output_raw_tp",
	"bpf_ringbuf_output", "bpf_ringbuf_submit", "bpf_ringbuf_submit_dynptr",
	"bpf_dev_queue_xmit", "__bpf_redirect",
}

// callBase is what the address of a called function is relative to
// (kernel/bpf/core.c).
const callBase = "__bpf_call_base"

// Symbols knows the functions that copy, by what calls of them look like. nil
// knows none.
type Symbols struct {
	names  map[int32]string
	hidden string // why addresses are not known; empty: they are
}

// LoadSymbols reads kallsyms (proc(5), /proc/kallsyms).
func LoadSymbols(path string) (*Symbols, error) {
	f, err := os.Open(path)
	if err != nil {
		return &Symbols{hidden: "the kernel has no table of symbols"}, err
	}
	defer f.Close()
	return readSymbols(f)
}

var errHidden = errors.New("kernel.kptr_restrict or lockdown hides the addresses of functions")

func readSymbols(r io.Reader) (*Symbols, error) {
	wanted := map[string]bool{callBase: true}
	for _, name := range copying {
		wanted[name] = true
	}
	at := map[string]uint64{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := s.Text()
		if strings.Contains(line, "\t[") {
			continue // a module's, which may be called like anything
		}
		address, rest, _ := strings.Cut(line, " ")
		_, name, _ := strings.Cut(rest, " ")
		if !wanted[name] {
			continue
		}
		value, err := strconv.ParseUint(address, 16, 64)
		if err != nil {
			return &Symbols{hidden: "the table of symbols is not readable"}, fmt.Errorf("symbol %s: %w", name, err)
		}
		at[name] = value
	}
	if err := s.Err(); err != nil {
		return &Symbols{hidden: "the table of symbols is not readable"}, err
	}
	base := at[callBase]
	if base == 0 {
		return &Symbols{hidden: errHidden.Error()}, errHidden
	}
	known := &Symbols{names: map[int32]string{}}
	for name, address := range at {
		if name != callBase {
			known.names[int32(address-base)] = name
		}
	}
	return known, nil
}

// name finds the copying functions among calls. A call of 0 is one whose
// address the kernel hides.
func (s *Symbols) name(calls []int64) (found []string, unknown string) {
	if s == nil || s.hidden != "" {
		if len(calls) == 0 {
			return nil, ""
		}
		if s == nil {
			return nil, "no table of symbols was read"
		}
		return nil, s.hidden
	}
	for _, call := range calls {
		if call == 0 {
			return found, errHidden.Error()
		}
		if name := s.names[int32(call)]; name != "" && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, ""
}
