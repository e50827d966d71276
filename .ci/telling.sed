# Leaves out of a stage's output what only says that something goes on or is as it should be.
/^ *(Blocking|Checking|Compiling|Doc-tests|Downloaded|Downloading|Finished|Locking|Running|Updating) /d
/^test .* \.\.\. ok$/d
/^test result: ok/d
/^running [0-9]+ tests?$/d
/^conformance: (building|built) /d
/^passed  [A-Za-z0-9]+ \([0-9.]+s\)$/d
/^ok  \t/d
/^$/d
