package images

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleFiles returns the files of the kernel modules that a list of the board
// names, each after those that it depends on.
func (b build) moduleFiles(ctx context.Context, list string) ([]string, error) {
	text, err := fs.ReadFile(b.board, list)
	if err != nil {
		return nil, err
	}
	version, err := b.kernelVersion()
	if err != nil {
		return nil, err
	}
	root, err := b.moduleTree(ctx, version)
	if err != nil {
		return nil, err
	}
	argv := append([]string{"modprobe", "-S", version, "-d", root, "--show-depends", "-a"}, words(string(text))...)
	out, err := output(ctx, b.work, argv...)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, file := range insmods(string(out)) {
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return files, nil
}

// moduleTree returns a folder with lib/modules/version as modprobe wants it.
// The kernel's own folder may be shared, so the dependency lists are made in a
// copy of links, once.
func (b build) moduleTree(ctx context.Context, version string) (string, error) {
	root := b.path("kmod")
	dir := filepath.Join(root, "lib/modules", version)
	if _, err := os.Stat(dir); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	source := filepath.Join(b.spec.Kernel, "lib/modules", version)
	for _, name := range []string{"kernel", "modules.order", "modules.builtin", "modules.builtin.modinfo"} {
		target, err := filepath.Abs(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return root, run(ctx, b.work, "depmod", "-b", root, version)
}

// rootModules puts the modules that the router's own userland may insert into
// its root file system, with the list of what each depends on. A board without
// such modules has no list of them.
func (b build) rootModules(ctx context.Context, tree string) error {
	files, err := b.moduleFiles(ctx, "rootmodules")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	version, err := b.kernelVersion()
	if err != nil {
		return err
	}
	dir := filepath.Join(tree, "lib/modules", version)
	if err := makeDirs(tree, "lib/modules/"+version); err != nil {
		return err
	}
	for _, file := range files {
		if err := copyFile(file, filepath.Join(dir, filepath.Base(file)), 0o644); err != nil {
			return err
		}
	}
	return b.listDependencies(ctx, tree, version)
}

// listDependencies writes modules.dep, and none of depmod's other lists: the
// userland's modprobe reads no other, and the kernel asks for no module itself.
func (b build) listDependencies(ctx context.Context, tree, version string) error {
	dep, err := output(ctx, b.work, "depmod", "-n", "-b", tree, version)
	if err != nil {
		return err
	}
	list, _, found := strings.Cut(string(dep), "\n# Aliases")
	if !found {
		return errors.New("depmod printed no lists of dependencies")
	}
	return writeFile(filepath.Join(tree, "lib/modules", version, "modules.dep"), []byte(list+"\n"), 0o644)
}

// insmods returns the files of modprobe's lines "insmod FILE ".
func insmods(text string) []string {
	var files []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "insmod" {
			files = append(files, f[1])
		}
	}
	return files
}

// words returns the words of a list file without its comments.
func words(text string) []string {
	var ws []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		ws = append(ws, strings.Fields(line)...)
	}
	return ws
}
