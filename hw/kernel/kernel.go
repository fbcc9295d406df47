// Package kernel lists what the running kernel was extended with: modules and
// BPF programs. It loads nothing and changes nothing.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// maxPrograms bounds how many BPF programs are looked at.
const maxPrograms = 10_000

// Modules returns the names of the loaded modules, sorted (proc(5),
// /proc/modules). A kernel without modules has none.
func Modules() ([]string, error) {
	text, err := os.ReadFile("/proc/modules")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	return parseModules(string(text))
}

func parseModules(text string) ([]string, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, fmt.Errorf("modules: line %q has %d fields: need at least 3", line, len(fields))
		}
		names = append(names, fields[0])
	}
	slices.Sort(names)
	return names, nil
}

// Programs returns the loaded BPF programs, one "TYPE NAME TAG" each, sorted.
// The tag is the kernel's digest of the instructions (bpf(2),
// BPF_OBJ_GET_INFO_BY_FD). It needs CAP_SYS_ADMIN.
func Programs() ([]string, error) {
	var programs []string
	for id := ebpf.ProgramID(0); len(programs) < maxPrograms; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			slices.Sort(programs)
			return programs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("BPF programs: %w", err)
		}
		id = next
		line, err := describe(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unloaded since
		}
		if err != nil {
			return nil, fmt.Errorf("BPF program %d: %w", id, err)
		}
		programs = append(programs, line)
	}
	return nil, fmt.Errorf("BPF programs: more than %d", maxPrograms)
}

func describe(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	name := info.Name
	if name == "" {
		name = "-"
	}
	return fmt.Sprintf("%s %s %s", info.Type, name, info.Tag), nil
}
