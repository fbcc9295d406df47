package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// errNotLoaded says that the kernel has not loaded what a list belongs to. We
// do not load it: the list is empty.
var errNotLoaded = errors.New("not loaded")

// loaded tells whether a part of the kernel is there without anybody's asking.
// A socket of a family or a request to a subsystem loads its module; what looks
// only must not.
func loaded(module string) bool {
	if _, err := os.Stat("/proc/modules"); err != nil {
		return true // a kernel without modules: asking loads nothing
	}
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return true
	}
	return builtIn()[module]
}

// builtIn reads the list of what is no module (kbuild's modules.builtin).
var builtIn = sync.OnceValue(func() map[string]bool {
	there := map[string]bool{}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return there
	}
	list, _ := os.ReadFile("/lib/modules/" + textOf(name.Release[:]) + "/modules.builtin") // none: nothing is known to be
	for path := range strings.FieldsSeq(string(list)) {
		there[strings.TrimSuffix(filepath.Base(path), ".ko")] = true
	}
	return there
})
