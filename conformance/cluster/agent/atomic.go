package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// volumeFile is one file of a volume of the API's objects.
type volumeFile struct {
	data []byte
	mode os.FileMode
	uid  int // owner, -1 for root
}

// dataLink is the link whose exchange shows all files of a new version at once. Programs watch it.
const dataLink = "..data"

// writeVolume makes the directory hold exactly the files, as the kubelet does: a new directory with
// the files, a link ..data to it that is exchanged in one step, and a link per top-level name that
// goes through ..data. It reports whether anything changed.
func writeVolume(dir string, files map[string]volumeFile, group int) (changed bool, err error) {
	if same(filepath.Join(dir, dataLink), files) {
		return false, nil
	}
	next, err := os.MkdirTemp(dir, "..version-")
	if err != nil {
		return false, err
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return false, err
	}
	for name, file := range files {
		if err := writeFile(filepath.Join(next, name), file, group); err != nil {
			return false, err
		}
	}
	previous, _ := os.Readlink(filepath.Join(dir, dataLink))
	link := filepath.Join(dir, dataLink+"_next")
	if err := os.Symlink(filepath.Base(next), link); err != nil {
		return false, err
	}
	if err := os.Rename(link, filepath.Join(dir, dataLink)); err != nil {
		return false, err
	}
	if err := linkNames(dir, files); err != nil {
		return false, err
	}
	if previous != "" {
		return true, os.RemoveAll(filepath.Join(dir, previous))
	}
	return true, nil
}

func writeFile(path string, file volumeFile, group int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, file.data, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(path, file.mode); err != nil {
		return err
	}
	return os.Chown(path, file.uid, group)
}

// linkNames makes a link for every top-level name and removes those whose name has gone.
func linkNames(dir string, files map[string]volumeFile) error {
	wanted := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		wanted[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, "..") && !wanted[name] {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for name := range wanted {
		err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// same says whether dir holds exactly the files.
func same(dir string, files map[string]volumeFile) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	count := 0
	equal := true
	err = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		count++
		name, _ := filepath.Rel(dir, path)
		data, err := os.ReadFile(path)
		file, ok := files[name]
		equal = equal && ok && bytes.Equal(data, file.data)
		return err
	})
	return err == nil && equal && count == len(files)
}
