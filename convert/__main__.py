import sys

from convert import command

sys.exit(command.main())
