package shell

// Options: which a command has, as getopt_long(3) finds them.

import "strings"

// Option is an option by the first of its names.
type Option struct {
	Name string
	// Values is how many words follow it; -1: one that may be missing.
	Values int
}

// Options are those of a command by all of their names.
type Options map[string]Option

// OptionsOf reads names of options with the number of values that follow: NAME for one,
// NAME/0, NAME/2, and NAME/? for one that may be missing. Names that mean the same are
// joined by '='.
func OptionsOf(text string) Options {
	out := Options{}
	for o := range strings.FieldsSeq(text) {
		names, number, has := strings.Cut(o, "/")
		spellings := strings.Split(names, "=")
		one := Option{spellings[0], 1}
		if has {
			one.Values = map[string]int{"0": 0, "2": 2, "?": -1}[number]
		}
		for _, s := range spellings {
			out[s] = one
		}
	}
	return out
}

// Find returns the option of this name, or the only one that begins so.
func (all Options) Find(name string) (o Option, ok bool) {
	if o, ok = all[name]; ok {
		return o, true
	}
	for spelling, other := range all {
		if strings.HasPrefix(spelling, name) {
			if ok && o != other {
				return Option{}, false
			}
			o, ok = other, true
		}
	}
	return o, ok
}
