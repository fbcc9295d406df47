// Package module lists kernel modules by the two views that the kernel has of
// them, and what taints the kernel.
//
// It loads and unloads nothing. A module that takes itself out of both views is
// not found: the kernel that would have to tell is no longer the owner's.
package module

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is one module, as far as the views tell of it.
type Module struct {
	Name   string
	Listed bool   // in /proc/modules
	Shown  bool   // in /sys/module, as loaded
	Taints string // letters of the flags that it has set; empty: none
}

// Hidden says in which view a module is missing; empty: in none.
func (m Module) Hidden() string {
	switch {
	case !m.Listed:
		return "/proc/modules"
	case !m.Shown:
		return "/sys/module"
	}
	return ""
}

const (
	maxModules = 4096
	maxList    = 1 << 20 // bytes of /proc/modules: a line has about 60
)

// Modules lists the modules below where proc(5) and sysfs(5) are mounted, sorted
// by name. A kernel without loadable modules has none.
func Modules(proc, sys string) ([]Module, error) {
	listed, err := readList(filepath.Join(proc, "modules"))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(sys, "module"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules: %w", err)
	}
	known := map[string]*Module{}
	for i := range listed {
		known[listed[i].Name] = &listed[i]
	}
	found := listed
	for _, e := range entries {
		loaded, coming := state(filepath.Join(sys, "module", e.Name()))
		switch m := known[e.Name()]; {
		case m != nil:
			m.Shown = true
		case loaded && !coming:
			found = append(found, Module{Name: e.Name(), Shown: true})
		}
	}
	slices.SortFunc(found, func(a, b Module) int { return strings.Compare(a.Name, b.Name) })
	return found[:min(len(found), maxModules)], nil
}

// state tells whether a folder of /sys/module is of a loadable module (built-in
// ones have no initstate: kernel/module/sysfs.c), and whether it is on its way
// in or out.
func state(folder string) (loaded, moving bool) {
	text, err := os.ReadFile(filepath.Join(folder, "initstate"))
	return err == nil, strings.TrimSpace(string(text)) != "live"
}

func readList(path string) ([]Module, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxList))
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	return parse(string(text))
}

// parse reads lines "name size references users state address (taints)"
// (kernel/module/procfs.c, m_show). A module that is not live yet, or no more,
// is not looked for in the other view: it counts as shown.
func parse(text string) ([]Module, error) {
	var found []Module
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			return nil, fmt.Errorf("modules: line %q has %d fields, want 6", line, len(fields))
		}
		m := Module{Name: fields[0], Listed: true, Shown: fields[4] != "Live"}
		if len(fields) > 6 {
			m.Taints = strings.Trim(fields[6], "()")
		}
		if len(found) < maxModules {
			found = append(found, m)
		}
	}
	return found, nil
}

// flags of /proc/sys/kernel/tainted by bit (Documentation/admin-guide/tainted-kernels.rst).
var flags = []string{
	"proprietary module", "module loaded by force", "out of specification", "module unloaded by force", "machine check", "bad page",
	"requested by user", "kernel died", "ACPI table overridden", "warning", "staging driver", "firmware workaround",
	"out-of-tree module", "unsigned module", "soft lockup", "live patch", "auxiliary", "structure randomised", "in-kernel test", "read from a changed page",
}

// Taint is the kernel's taint mask, and what it means.
func Taint(proc string) (mask uint64, words []string, err error) {
	text, err := os.ReadFile(filepath.Join(proc, "sys/kernel/tainted"))
	if err != nil {
		return 0, nil, fmt.Errorf("taint: %w", err)
	}
	mask, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, nil, fmt.Errorf("taint: %w", err)
	}
	for bit, word := range flags {
		if mask&(1<<bit) != 0 {
			words = append(words, word)
		}
	}
	if mask>>len(flags) != 0 {
		words = append(words, fmt.Sprintf("%#x", mask>>len(flags)<<len(flags)))
	}
	return mask, words, nil
}
