package agent

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Program is what runs for an image: an executable of this machine, and the user that the image
// would have named (0 when nobody says).
type Program struct {
	Image string // part of the image's name
	Path  string
	UID   int64
	// Words that stand, with the program, in place of the container's command; nil leaves the command.
	Words []string
}

// Programs is the table of images.
type Programs []Program

// ParsePrograms reads IMAGE-SUBSTRING=PATH[@UID][ WORD...],... A space alone replaces the command too.
func ParsePrograms(text string) (Programs, error) {
	var programs Programs
	for _, entry := range strings.Split(text, ",") {
		if entry == "" {
			continue
		}
		image, path, ok := strings.Cut(entry, "=")
		if !ok || image == "" || path == "" {
			return nil, fmt.Errorf("--programs: %q is not IMAGE=PATH or IMAGE=PATH@UID", entry)
		}
		program := Program{Image: image}
		path, words, replaces := strings.Cut(path, " ")
		if replaces {
			program.Words = strings.Fields(words)
		}
		program.Path = path
		if at, user, ok := strings.Cut(path, "@"); ok {
			uid, err := strconv.ParseInt(user, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("--programs: %q: the user must be a number", entry)
			}
			program.Path, program.UID = at, uid
		}
		absolute, err := filepath.Abs(program.Path)
		if err != nil {
			return nil, fmt.Errorf("--programs: %q: %w", entry, err)
		}
		program.Path = absolute
		programs = append(programs, program)
	}
	return programs, nil
}

// For finds what stands for the image: the entry whose name is contained in it, the longest such.
func (p Programs) For(image string) (Program, bool) {
	best, found := Program{}, false
	for _, program := range p {
		if strings.Contains(image, program.Image) && (!found || len(program.Image) > len(best.Image)) {
			best, found = program, true
		}
	}
	return best, found
}

// Argv is the command line of a container: its command (or, without one or where the table says so,
// the image's program) and its arguments.
func Argv(program Program, command, args []string) []string {
	if program.Words != nil {
		command = append([]string{filepath.Base(program.Path)}, program.Words...)
	}
	if len(command) == 0 {
		command = []string{filepath.Base(program.Path)}
	}
	return append(append([]string{}, command...), args...)
}
