"""The second name of export_model.py, by which the project that the two-stage guide comes from announced it.

python export_for_mobile.py output/RUN --to onnx-int8
"""

from sharpstudent.core.errors import exit_codes

from export_model import main

if __name__ == "__main__":
    with exit_codes():
        main()
